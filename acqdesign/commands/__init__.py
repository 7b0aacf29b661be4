"""What the command lines share, and the commands that learn nothing: export, merge, doctor."""

"""What is scanned: tissues, phantoms, images, coils, field maps."""

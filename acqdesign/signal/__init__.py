"""How the spins answer: EPG simulation, sequences and Cramér–Rao bounds."""

"""Class activation maps: the classifiers that give them, and their files."""

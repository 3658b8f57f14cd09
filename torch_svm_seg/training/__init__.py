"""Training of networks: resumable, on one process or several."""

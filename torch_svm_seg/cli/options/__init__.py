"""The command line flags that several scripts and commands share, and what they mean."""

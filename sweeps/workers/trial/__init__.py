"""What the processes of a trial have in common, and how several of them are one training."""

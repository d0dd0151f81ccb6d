"""Training of the embedded LRM: the teacher's traces, pre-training, trigger SFT."""

"""A tuner: searches the policy file's thresholds in the simulator, and judges what it found on arrivals unseen."""

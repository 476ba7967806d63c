"""The drift bench: known faults put into real models' answers, and what is noticed of them."""

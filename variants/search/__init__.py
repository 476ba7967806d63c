"""Architecture search: from a trained network to a ladder of tiers that the ordinary build then makes."""

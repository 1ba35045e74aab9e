"""What the live stream tells, to whom, and where a follower stands."""

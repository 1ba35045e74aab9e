"""What a shard decides: alerts in, events out."""

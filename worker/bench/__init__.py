"""What a worker's parts cost, measured: `captionq-worker bench intake` and `bench service`."""

"""Where the map from resource to call context is kept: the adapters of IStore."""

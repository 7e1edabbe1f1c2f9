"""The Pulumi provider plugin of networks that speak the Open Capacity API, named ``shardnet``."""

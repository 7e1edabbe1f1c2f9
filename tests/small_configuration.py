"""The least that a configuration file may hold."""

GOOD = """
name = "demo"

[pulumi]
passphrase = { env = "PHRASE" }

[[risk_classes]]
name = "gold"
rank = 0
quantile = 0.95
max_shortfall = 0.01

[[shard_types]]
name = "cpu.small"
vcpus = 1
memory_gib = 2

[[providers]]
name = "aws"
kind = "aws"
account = "123456789012"
regions = ["us-east-1"]
credentials.access_key_id = { env = "KEY_ID" }

[[pools]]
id = "web"
shard_type = "cpu.small"
risk_class = "gold"

[[workloads]]
namespace = "shop"
name = "web"
components = [{ name = "api", pool = "web" }]
"""

"""AWS on loopback: a moto server in this process, with a layer in front for what moto lacks or does not enforce.

Own: the price list (GetProducts), spot prices that move (DescribeSpotPriceHistory), GetSpotPlacementScores, idempotent
RunInstances, refusals (credentials, regions, no capacity), a meter, a Cost and Usage Report in S3, invoices.
Everything else is moto's answer. One pair of credentials is accepted: the one below.
"""

ACCESS_KEY_ID = "AKIASHARDWRIGHTSANDB"
SECRET_ACCESS_KEY = "sandbox-secret-access-key"  # noqa: S105 (opens nothing but a server on loopback)

REPORT_BUCKET = "shardwright-cur"
REPORT_PREFIX = "reports"
REPORT_NAME = "shardwright"
"""The manifest of a billing month: s3://BUCKET/PREFIX/NAME/YYYYMMDD-YYYYMMDD/NAME-Manifest.json."""

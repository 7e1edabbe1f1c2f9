from tests.contract.policy_contract import PolicyContract


class TestSeasonalQuantile(PolicyContract):
    name = "seasonal-quantile"

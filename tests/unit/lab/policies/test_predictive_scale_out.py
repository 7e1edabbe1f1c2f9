from tests.contract.policy_contract import PolicyContract


class TestPredictiveScaleOut(PolicyContract):
    name = "predictive-scale-out"

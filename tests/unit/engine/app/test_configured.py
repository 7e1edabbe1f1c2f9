from engine.app.configured import part_checks


def test_the_doctor_looks_for_the_tunnel_too() -> None:
    parts = {part.name: part for part in (check() for check in part_checks())}
    wireguard = parts["wireguard"]
    assert wireguard.needed_for == "the overlay between nodes"
    assert wireguard.ok == bool(wireguard.version)
    assert "Go" in wireguard.remedy

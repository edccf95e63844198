import json
from pathlib import Path

from infra.embedded import ports
from infra.settings import EmbeddedSettings


def test_a_stack_from_before_a_listener_was_added_gets_a_port_for_it(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    settings = EmbeddedSettings.model_construct()
    with ports.chosen(file, settings) as first:
        pass
    older = first.model_dump(exclude={"registry", "gateway"})
    file.write_text(json.dumps(older))
    with ports.chosen(file, settings) as again:
        assert again == first
    numbers = first.model_dump()
    assert len(set(numbers.values())) == len(numbers)
    assert max(numbers.values()) == first.control_planes

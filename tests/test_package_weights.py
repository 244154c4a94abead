"""benchmarks.package_weights: weights that were not downloaded are found as if they had been."""

import pytest
import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

from benchmarks.package_weights import NET, main, renamed, write


def test_the_clients_cache_has_the_weights_under_timms_names(tmp_path) -> None:
    net = timm.create_model(NET)
    in_package = {f"_{number}": value for number, value in enumerate(net.state_dict().values())}
    file = write(renamed(in_package), tmp_path)
    repository = net.pretrained_cfg["hf_hub_id"]
    found = hf_hub_download(repository, file.name, cache_dir=tmp_path, local_files_only=True)
    loaded = load_file(found)
    assert loaded.keys() == net.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in net.state_dict().items())


def test_the_weights_of_another_net_are_refused() -> None:
    with pytest.raises(SystemExit, match=f"expected the weights of {NET}"):
        renamed(timm.create_model("tf_efficientnet_lite1").state_dict())


def test_a_missing_file_is_one_sentence(tmp_path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "no.pth"), str(tmp_path)])
    assert capsys.readouterr().err.endswith(f"there is no file {tmp_path / 'no.pth'}\n")

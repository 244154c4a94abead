from torchvision import datasets


def test_labels_are_the_100_fine_classes(build, write_cifar, tmp_path):
    write_cifar(datasets.CIFAR100, tmp_path)
    data = build("cifar100", "data.batch_size=8", f"data.root={tmp_path}", "data.val_fraction=0")
    data.setup()
    assert data.num_classes == 100
    assert data.parts["test"].y.tolist() == datasets.CIFAR100(tmp_path, train=False).targets
    assert data.parts["train"].x.shape == (400, 3, 32, 32)

from kd_lightning.base.words import cut, percent, shorten


def test_a_share_is_shown_in_percent():
    assert (percent(0.98333), percent(0.5, 1), percent(1.0)) == ("98.33 %", "50.0 %", "100.00 %")


def test_the_first_of_many_names_are_shown():
    assert shorten([]) == ""
    assert shorten(["a", "b"], most=2) == "a, b"
    assert shorten(["a", "b", "c"], most=2) == "a, b, …"
    assert shorten([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, …"


def test_a_text_is_cut_to_its_length():
    assert (cut("abcd", 4), cut("abcde", 4)) == ("abcd", "abc…")

from kd_lightning.base.words import cut, percent, plain, quoted, shorten


def test_a_share_is_shown_in_percent():
    assert (percent(0.98333), percent(0.5, 1), percent(1.0)) == ("98.33 %", "50.0 %", "100.00 %")


def test_the_first_of_many_names_are_shown():
    assert shorten([]) == ""
    assert shorten(["a", "b"], most=2) == "a, b"
    assert shorten(["a", "b", "c"], most=2) == "a, b, …"
    assert shorten([str(i) for i in range(9)]) == "0, 1, 2, 3, 4, …"


def test_a_text_is_cut_to_its_length():
    assert (cut("abcd", 4), cut("abcde", 4)) == ("abcd", "abc…")


def test_signs_that_cannot_be_printed_are_written_out() -> None:
    assert plain("a\0b\n c\udce9 é") == r"a\x00b c\udce9 é"


def test_a_long_cell_is_cut_in_its_quotes() -> None:
    assert quoted(" 0,5\t") == "'0,5'"
    assert quoted("x" * 1000) == f"'{'x' * 39}…'"

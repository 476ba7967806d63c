"""Words are cut into the pieces of a vocabulary as the published tokeniser cuts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from variants.errors import RecipeError
from variants.sources.wordpiece import WordPiece, read_texts, read_wordpiece

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##afford", "##able", "!", "cafe", "中", "文", "$", "unable"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Unaffordable!", ["un", "##afford", "##able", "!"]),
        ("unable", ["unable"]),  # the longest piece, not the first
        ("CAFÉ cafe\u0301", ["cafe", "cafe"]),
        ("中文", ["中", "文"]),
        ("un\u0000\u200b$un", ["un", "$", "un"]),
        ("unafford? ca", ["un", "##afford", "[UNK]", "[UNK]"]),
        ("un" * 51, ["[UNK]"]),
    ],
)
def test_tokens_are_the_longest_pieces(text: str, pieces: list[str]) -> None:
    tokeniser = WordPiece({word: number for number, word in enumerate(WORDS)}, is_lower=True)
    assert [WORDS[number] for number in tokeniser.tokens(text)] == pieces


def test_rows_begin_end_and_are_filled(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    rows = read_wordpiece(tmp_path).encode(["unable", "un un un un"], 5)
    assert rows.tolist() == [[2, 12, 3, 0, 0], [2, 4, 4, 4, 3]]


def test_a_cased_vocabulary_keeps_case(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    assert read_wordpiece(tmp_path).tokens("Un un") == [1, 4]


def test_what_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the vocabulary .*vocab\.txt"):
        read_wordpiece(tmp_path)
    (tmp_path / "vocab.txt").write_text("<s>\n</s>\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"lacks \[PAD\], \[UNK\]"):
        read_wordpiece(tmp_path)


def test_texts_are_lines_with_a_tab_before_the_label(tmp_path: Path) -> None:
    (tmp_path / "texts.tsv").write_text("a\tb\tgood\n\nno label\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts.tsv") == (["a\tb", "no label"], ["good", ""])
    (tmp_path / "none.tsv").write_text("\n")
    with pytest.raises(RecipeError, match=r"none\.tsv' holds no text"):
        read_texts(tmp_path / "none.tsv")

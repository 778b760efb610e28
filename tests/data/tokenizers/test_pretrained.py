import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sweep.config import PretrainedTokenizerConfig, to_dict
from sweep.config.compose import compose_experiment
from sweep.data.documents import document
from sweep.data.tokenizers import pretrained, probes
from sweep.data.tokenizers.pretrained import PretrainedTokenizer
from sweep.data.tokenizers.tokenizers import (
    build_tokenizer,
    check_tokenizer,
    tokenizer_sha256,
    vocab_size,
)
from sweep.errors import DataError, InputError
from sweep.study.plan import dataset
from tests.data.corpora import Prepare, generated
from tests.data.fake_hub import COMMIT, fake_hub

CORPUS = "c" * 64
STRANGE = document("strange", "naïve → 🦊\r\n\t<|endoftext|>\x00 \u2028 tail ".encode())


def config(path: Path, **changes: Any) -> PretrainedTokenizerConfig:
    values = {
        "name": "pretrained",
        "path": str(path),
        "revision": None,
        "separator": None,
        "vocab_size": None,
    }
    return PretrainedTokenizerConfig(**{**values, **changes})


def byte_level(n_tokens: int = 400, special: str = "<|endoftext|>") -> Tokenizer:
    """Return a tokenizer like GPT-2's, trained by the library on other text than it is used on."""
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=[special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator((found.content.decode() for found in generated(60, seed=5)), trainer)
    return fast


def byte_fallback(prefix: bool = False) -> Tokenizer:
    """Return a small tokenizer like Llama 2's: pieces with a mark for spaces, and byte fallback."""
    pieces = [
        "<unk>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"abcde\u2581",
        "\u2581a",
        "ab",
        "ï",
    ]
    fast = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[("\u2581", "a"), ("a", "b")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    fast.add_special_tokens(["</s>"])
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    fast.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    fast.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return fast


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Tokenizer], Path]:
    def save(fast: Tokenizer) -> Path:
        fast.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    return save


def sentencepiece(scheme: str) -> Tokenizer:
    """Return a tokenizer like Llama 2's as newer versions of transformers convert it."""
    fast = byte_fallback()
    fast.normalizer = None
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    fast.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([] if scheme == "never" else [decoders.Strip(" ", 1, 0)]),
        ]
    )
    return fast


def llama() -> Tokenizer:
    return byte_fallback(prefix=True)


@pytest.mark.parametrize(
    ("make", "n_added"),
    [
        (byte_level, 0),
        (byte_fallback, 0),
        (llama, 1),
        (lambda: sentencepiece("never"), 0),
        (lambda: sentencepiece("always"), 1),
        (lambda: sentencepiece("first"), 1),
    ],
)
def test_decoding_is_lossless_and_byte_counts_are_exact(
    saved: Callable[[Tokenizer], Path], make: Callable[[], Tokenizer], n_added: int
) -> None:
    fast = make()
    tokenizer = PretrainedTokenizer(config(saved(fast)))
    texts = [
        *generated(20),
        STRANGE,
        document("probe", probes.MIXED.encode()),
        document("spaces", b"   x"),
        document("none", b"x"),
    ]
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert fast.decode(ids.tolist(), skip_special_tokens=False).encode() == text.content
        assert tokenizer.token_bytes[[*ids, tokenizer.separator]].sum() == len(text.content)
        assert tokenizer.separator not in ids
    assert tokenizer.vocab_size == fast.get_vocab_size() == len(tokenizer.token_bytes)
    assert tokenizer.token_bytes[tokenizer.separator] == -n_added


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_added_tokens_represent_their_text(
    saved: Callable[[Tokenizer], Path], make: Callable[[], Tokenizer]
) -> None:
    fast = make()
    fast.add_tokens([AddedToken("one→two", normalized=False)])
    tokenizer = PretrainedTokenizer(config(saved(fast)))
    (ids,) = tokenizer.encode([document("added", "a one→two b".encode())])
    assert fast.token_to_id("one→two") in ids
    assert tokenizer.token_bytes[ids].sum() == len("a one→two b".encode())


def test_a_leading_space_is_not_counted_in_prepared_data(
    saved: Callable[[Tokenizer], Path], prepare_texts: Prepare
) -> None:
    data = prepare_texts(tokenizer=config(saved(llama())))
    for tokens, split in ((data.train, data.manifest.train), (data.heldout.tokens, data.manifest.heldout)):
        assert data.heldout.token_bytes[tokens.read(0, split.n_tokens)].sum() == split.n_bytes


def test_text_with_the_mark_for_spaces(saved: Callable[[Tokenizer], Path]) -> None:
    tokenizer = PretrainedTokenizer(config(saved(llama())))
    with pytest.raises(DataError, match=r"odd: offset 2 holds ▁ \(U\+2581\), which is a space in this"):
        tokenizer.encode([document("odd", "ab▁".encode())])
    ids = PretrainedTokenizer(config(saved(byte_level()))).encode([document("odd", "ab▁".encode())])
    assert len(ids) == 1


def test_the_plan_refuses_text_with_the_mark_for_spaces(
    saved: Callable[[Tokenizer], Path], tmp_path: Path
) -> None:
    (tmp_path / "corpus.txt").write_text("".join(f"line {i} {'▁' * (i == 7)}\n" for i in range(300)))
    overrides = ["experiment=smoke", "data=text", f"data.files={tmp_path}/corpus.txt", "data.delimiter=\\n"]
    overrides += [f"data_dir={tmp_path}", "tokenizer=pretrained", f"tokenizer.path={saved(llama())}"]
    with pytest.raises(DataError, match=r"line 8: offset 7 holds ▁ \(U\+2581\), which is a space"):
        dataset(compose_experiment(overrides))
    saved(byte_level())
    assert dataset(compose_experiment(overrides)).n_documents == 300


def test_a_byte_order_mark_is_harmless(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(byte_level())
    plain = PretrainedTokenizer(config(path)).encode([STRANGE])[0]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert PretrainedTokenizer(config(path)).encode([STRANGE])[0].tolist() == plain.tolist()


def test_prepared_data(saved: Callable[[Tokenizer], Path], prepare_texts: Prepare) -> None:
    chosen = config(saved(byte_level()))
    data = prepare_texts(tokenizer=chosen)
    assert (data.manifest.tokenizer, data.manifest.vocab_size) == ("pretrained", 400)
    assert data.manifest.tokenizer_sha256 == tokenizer_sha256(chosen, CORPUS)  # not trained on the corpus
    assert data.train.read(0, 10**6).max() < 400


def test_the_identity_is_the_content(saved: Callable[[Tokenizer], Path], tmp_path: Path) -> None:
    path = saved(byte_level())
    name = tokenizer_sha256(config(path), CORPUS)
    assert tokenizer_sha256(config(path.parent), "d" * 64) == name  # the directory of the file
    (tmp_path / "copy.json").write_bytes(path.read_bytes())
    assert tokenizer_sha256(config(tmp_path / "copy.json"), CORPUS) == name
    assert tokenizer_sha256(config(path, separator="<|endoftext|>"), CORPUS) == name
    assert tokenizer_sha256(config(path, vocab_size=512), CORPUS) != name
    saved(byte_level(401))
    assert tokenizer_sha256(config(path), CORPUS) != name


def test_a_plan_needs_no_library_and_a_larger_vocabulary_is_padded(
    saved: Callable[[Tokenizer], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(byte_level())
    padded = PretrainedTokenizer(config(path, vocab_size=512))
    assert (padded.vocab_size, len(padded.token_bytes), np.count_nonzero(padded.token_bytes)) == (
        512,
        512,
        399,
    )
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert vocab_size(config(path)) == 400
    assert vocab_size(config(path, vocab_size=512)) == 512
    with pytest.raises(InputError, match=r"tokenizer=pretrained needs the tokenizers library: pip install"):
        build_tokenizer(config(path), CORPUS, [], path.parent)


# --- errors ------------------------------------------------------------------------------------------


def test_a_vocabulary_that_is_too_small(saved: Callable[[Tokenizer], Path]) -> None:
    with pytest.raises(
        DataError, match=r"vocab_size=399 is less than the 400 tokens in .*: set it to at least 400"
    ):
        vocab_size(config(saved(byte_level()), vocab_size=399))


def test_separators(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(byte_level(special="<stop>"))
    with pytest.raises(
        DataError, match=r"special token <\|endoftext\|> or .* not found: .* the file\'s \(<stop>\)"
    ):
        vocab_size(config(path))
    assert PretrainedTokenizer(config(path, separator="<stop>")).separator == 0
    with pytest.raises(DataError, match=r"special token <end> for the end of documents not found"):
        vocab_size(config(path, separator="<end>"))


def lower_casing() -> Tokenizer:
    fast = byte_level()
    fast.normalizer = normalizers.Lowercase()
    return fast


def prefixing() -> Tokenizer:
    fast = byte_level()
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return fast


def normalising() -> Tokenizer:
    fast = byte_level()
    fast.normalizer = normalizers.NFKC()
    return fast


def word_level() -> Tokenizer:
    fast = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "<eos>": 2}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.add_special_tokens(["<eos>"])
    return fast


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lower_casing, r"it decodes 'Upper' as 'upper': choose a byte-level"),
        (normalising, r"it decodes '½' as '1⁄2': choose a byte-level"),
        (word_level, r"it decodes '\w+' as '.*': choose a byte-level"),
        (prefixing, r"adds a space before text .* \('words' is decoded as ' words'\).* set add_prefix_space"),
    ],
)
def test_a_plan_refuses_a_tokenizer_that_changes_text(
    saved: Callable[[Tokenizer], Path], make: Callable[[], Tokenizer], reason: str
) -> None:
    with pytest.raises(DataError, match=rf"is not lossless.*{reason}"):
        check_tokenizer(config(saved(make())))


def composing() -> Tokenizer:
    fast = byte_level()
    fast.normalizer = normalizers.NFC()
    return fast


def test_texts_that_look_alike_are_shown_as_escapes(saved: Callable[[Tokenizer], Path]) -> None:
    with pytest.raises(DataError, match=r"it decodes 'e\\u0301' as '\\xe9'"):
        check_tokenizer(config(saved(composing())))


def test_files_that_are_not_tokenizers_are_refused_in_a_sentence(
    saved: Callable[[Tokenizer], Path], tmp_path: Path
) -> None:
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "tokenizer.model").write_bytes(b"\n\x0e")
    for path in (tmp_path / "llama", tmp_path / "llama" / "tokenizer.model"):
        with pytest.raises(DataError, match=r"is a SentencePiece model: .*save_pretrained"):
            check_tokenizer(config(path))
    with pytest.raises(InputError, match=r"tokenizer\.path=https://x\.org/gpt2 is a URL"):
        check_tokenizer(replace(config(tmp_path), path="https://x.org/gpt2"))
    path = saved(byte_level())
    with pytest.raises(DataError, match=r"has a vocabulary of 1000000000000 tokens, at most 16777216 can be"):
        check_tokenizer(config(path, vocab_size=10**12))
    edit(path, lambda values: values["model"].update(type="WordLevel", vocab={"a": 0, "b": 1}, unk_token="b"))
    with pytest.raises(
        DataError, match=r"added token <\|endoftext\|> has id 0, and .* reads 2: save it again"
    ):
        check_tokenizer(config(path))


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_the_remedy_for_a_prefix_space_works(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(prefixing())
    edit(path, lambda values: values["pre_tokenizer"].update(add_prefix_space=False))
    check_tokenizer(config(path))


@pytest.mark.parametrize(("key", "value"), [("dropout", 0.1), ("alpha", 0.5), ("nbest_size", 4)])
def test_a_plan_refuses_a_tokenizer_that_samples(
    saved: Callable[[Tokenizer], Path], key: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(byte_level())
    edit(path, lambda values: values["model"].update({key: value}))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=rf"is not deterministic: .* {key}={value}.*: set {key} to null in"):
        vocab_size(config(path))
    monkeypatch.undo()
    edit(path, lambda values: values["model"].update({key: None}))
    check_tokenizer(config(path))


def test_every_key_that_samples_is_named_at_once(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(byte_fallback())
    edit(path, lambda values: values["model"].update(alpha=0.1, nbest_size=-1))
    with pytest.raises(DataError, match=r"set alpha and nbest_size to null in a copy of the file$"):
        check_tokenizer(config(path))
    edit(path, lambda values: values["model"].update(alpha=None, nbest_size=None))
    check_tokenizer(config(path))


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_added_tokens_leave_the_spaces_around_them_in_the_text(
    saved: Callable[[Tokenizer], Path], side: str
) -> None:
    fast = byte_level()
    fast.add_tokens([AddedToken("<|user|>", **{side: True}, normalized=False)])
    tokenizer = PretrainedTokenizer(config(saved(fast)))
    found = document("a", b"one  <|user|>  two")
    (ids,) = tokenizer.encode([found])
    assert 400 in ids
    assert tokenizer.token_bytes[ids].sum() == len(found.content)


@pytest.mark.parametrize("make", [byte_level, llama])
@pytest.mark.parametrize(
    ("pattern", "content", "change"),
    [
        ("ё", "е", r"'aёb' as 'aеb'"),  # as many bytes
        ("“", '"', r"'a“b' as 'a\"b'"),
        ("(c)", "©", r"'a\(c\)b' as 'a©b'"),
        ("colour", "color", "'acolourb' as 'acolorb'"),
        (Regex("[\u200b-\u200d]"), "", r"'a\\u200bb' as 'ab'"),
        (Regex("\u00ad"), "", r"'a\\xadb' as 'ab'"),
        (Regex("^\ufeff"), "", r"'\\ufefffirst' as 'first'"),
        (Regex(r"[\x00-\x08\x7f]"), "", r"'a\\x00b' as 'ab'"),
        (Regex(r"\p{Cf}"), "", r"'\\ufefffirst' as 'first'"),
        (Regex(r"\p{Mn}"), "", r"as "),
        (Regex("[\u0590-\u05cf]"), "", r"as 'ab'"),
        (Regex("[èé]"), "ê", r"'aèb' as 'aêb'"),
        (Regex("[\U0001f3fb-\U0001f3ff]"), "", r"'a🏻b' as 'ab'"),
        (Regex(r"\n{3,}"), "\n\n", r"'a\\n\\n\\n\\nline' as 'a\\n\\nline'"),
        (Regex(r"https?://\S+"), "URL", r"'https://a\.org/b\?c=d#e' as 'URL'"),
        (Regex(r" ([.?,])"), r".", r"wait"),
    ],
)
def test_a_plan_refuses_a_tokenizer_that_replaces_or_drops_text(
    saved: Callable[[Tokenizer], Path],
    make: Callable[[], Tokenizer],
    pattern: Any,
    content: str,
    change: str,
) -> None:
    fast = make()
    steps = [] if fast.normalizer is None else [fast.normalizer]
    fast.normalizer = normalizers.Sequence([normalizers.Replace(pattern, content), *steps])
    with pytest.raises(DataError, match=rf"(?s)is not lossless, .*: it decodes .*{change}"):
        check_tokenizer(config(saved(fast)))


def test_characters_are_reproduced_one_by_one_and_probed_quickly(
    saved: Callable[[Tokenizer], Path],
) -> None:
    assert len(set(probes.characters())) > 17_000
    assert not set("\x00\x7f\xad\u200b\u2060\ufeff\ufffd\u0301\ufe0f\U000e0061") - set(probes.characters())
    tokenizer = PretrainedTokenizer(config(saved(llama())))
    started = time.process_time()
    groups = list(probes.character_groups())
    assert pretrained._changed(tokenizer._fast, tokenizer.token_bytes, groups, 1) == []
    assert time.process_time() - started < 0.5


def test_errors_and_panics_of_the_library_are_one_sentence(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(byte_level())
    edit(path, lambda values: values["model"].update(continuing_subword_prefix="##"))
    with pytest.raises(DataError, match=r"cannot be read by version .* of the tokenizers library"):
        check_tokenizer(config(path))
    without_unk = Tokenizer(models.Unigram([("</s>", 0.0), ("a", -1.0)], None, False))
    without_unk.add_special_tokens(["</s>"])
    with pytest.raises(DataError, match=r"cannot encode 'words' \(.*unk_id.*\): choose a byte-level tok"):
        check_tokenizer(config(saved(without_unk)))
    texts = "".join((*probes.PROBES, probes.MIXED)) + "".join(" ab")
    pieces = [("</s>", 0.0), *((text, -1.0) for text in sorted(set(texts)))]
    without_unk = Tokenizer(models.Unigram(pieces, None, False))
    without_unk.add_special_tokens(["</s>"])
    without_unk.decoder = decoders.Fuse()
    with pytest.raises(DataError, match=r"cannot encode 'a\\x00b' \(.*unk_id.*\): choose a byte-level tok"):
        check_tokenizer(config(saved(without_unk)))


def test_a_plan_without_the_library_checks_what_it_can(
    saved: Callable[[Tokenizer], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(lower_casing())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_tokenizer(config(path))


@pytest.mark.parametrize("content", ["", "{}", "[]", "\x00", '{"added_tokens": [], "model": {}}'])
def test_a_file_that_is_not_a_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is not in the format of the tokenizers"):
        vocab_size(config(tmp_path))


def test_a_file_of_a_newer_library(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(byte_level())
    edit(path, lambda values: values.update(pre_tokenizer={"type": "NotYet"}))
    with pytest.raises(
        DataError,
        match=r"cannot be read by version [\d.]+ of the tokenizers library \(.*: choose another.*update",
    ):
        check_tokenizer(config(path))


def test_paths_and_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.path=.*/tokenizer\.json cannot be read \(No such file"):
        vocab_size(config(tmp_path))
    with pytest.raises(InputError, match=r"tokenizer\.revision has no effect on the local path"):
        vocab_size(config(tmp_path, revision=COMMIT))
    with pytest.raises(InputError, match=r"tokenizer\.revision=main is not a commit: give the 40 hex digits"):
        vocab_size(config(Path("gpt2"), revision="main"))


# --- the hub -----------------------------------------------------------------------------------------

SCRIPT = """
import json, sys, time
from sweep.config import PretrainedTokenizerConfig
from sweep.data.sources import hub
from sweep.data.tokenizers.tokenizers import vocab_size
hub.TIMEOUT_S = 1.0
answers = []
for values in json.load(sys.stdin):
    begun = time.perf_counter()
    try:
        answer = vocab_size(PretrainedTokenizerConfig(**values))
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    answers.append([answer, time.perf_counter() - begun])
print(json.dumps(answers))
"""


def ask(endpoint: str, home: Path, configs: list[PretrainedTokenizerConfig]) -> list[tuple[Any, float]]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([to_dict(one) for one in configs]),
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in environment.items() if not key.startswith("HF_HUB")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_tokenizer_from_the_hub_is_downloaded_once(
    saved: Callable[[Tokenizer], Path], tmp_path: Path
) -> None:
    name = Path("me/words")
    files = {
        "models/me/words": {"tokenizer.json": saved(byte_level()).read_bytes()},
        "models/me/bare": {"x": b""},
    }
    cases = [
        config(name, revision=COMMIT),
        config(name, revision="b" * 40),
        config(Path("me/bare"), revision=COMMIT),
        config(Path("me/gone"), revision=COMMIT),
    ]
    with fake_hub(files) as endpoint:
        (found, *refused) = [answer for answer, _ in ask(endpoint, tmp_path / "home", cases)]
    assert found == 400
    for answer, sentence in zip(
        refused, ("has no commit bbb", "has no tokenizer.json at", "not found on the hub"), strict=True
    ):
        assert answer.startswith("DataError: tokenizer.path=me/")
        assert sentence in answer
    gone = "http://127.0.0.1:9"
    ((cached, _), (other, seconds)) = ask(gone, tmp_path / "home", [cases[0], cases[3]])
    assert cached == 400
    assert f"{gone} does not answer (" in other
    assert "copy the tokenizer.json here and give tokenizer.path=FILE" in other
    assert seconds < 20  # the library's retries would take minutes

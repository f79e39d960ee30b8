"""The settings of forwarding rules: what reaches the services, what is refused and why, and what check-config says."""

import json
from datetime import time
from ipaddress import ip_network
from pathlib import Path

import pytest

from stowkeeper.app import limits
from stowkeeper.app.commands import run
from stowkeeper.app.commands.check_config import toml_lines
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.forwarding_rules import forwarding_rules
from stowkeeper.app.settings import Settings, SettingsError, load_settings, reload_settings, warnings_of
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.forwarding.rules import ForwardingRule, When

RULE = '[[forwarding_rules]]\nname = "night"\nto = ["pacs"]\n'
WHOLE = """
[[forwarding_rules]]
name = "night"
calling_ae_titles = ["CT*", "MR 1 "]
called_ae_titles = ["STOW?EEPER", "*"]
addresses = ["10.0.0.0/8", "fd00::/8"]
modalities = ["CT", "MR"]
sop_classes = ["CTImageStorage", "1.2.3"]
received_by = ["C-STORE", "import"]
attributes = {StationName = "A*", SeriesNumber = [3, "4?"], PatientComments = ['a\\b']}
received_between = ["22:00", 06:30:00]
to = ["pacs", "cloud", "pacs"]
when = "study.quiet"
priority = -5
"""


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "site.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(str(file), {}, {})


def problem_of(folder: Path, text: str) -> str:
    """Return the one problem of some settings, without the folder and the place in the file."""
    with pytest.raises(SettingsError) as failure:
        loaded(folder, text)
    (problem,) = failure.value.problems
    return str(problem).removeprefix(f"{folder}/")


def test_what_is_set_reaches_the_services(tmp_path: Path) -> None:
    assert forwarding_rules(loaded(tmp_path, WHOLE + '[[forwarding_rules]]\nname = "b"\nto = ["x"]')) == (
        ForwardingRule(
            name="night",
            conditions=Conditions(
                calling_ae_titles=("CT*", "MR 1"),
                called_ae_titles=("STOW?EEPER", "*"),
                addresses=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
                modalities=("CT", "MR"),
                sop_classes=("1.2.840.10008.5.1.4.1.1.2", "1.2.3"),
                received_by=("C-STORE", "import"),
                attributes={
                    "StationName": ("A*",),
                    "SeriesNumber": ("3", "4?"),
                    "PatientComments": ("a\\b",),
                },
                received_between=(time(22), time(6, 30)),
            ),
            to=("pacs", "cloud"),
            when=When.STUDY_QUIET,
            priority=-5,
        ),
        ForwardingRule(name="b", conditions=Conditions(), to=("x",)),
    )


def test_what_check_config_prints_can_be_read_again(tmp_path: Path) -> None:
    first = loaded(tmp_path, WHOLE)
    again = loaded(tmp_path, "\n".join(toml_lines(first)))
    assert forwarding_rules(again) == forwarding_rules(first)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('modalities = ["ct"]', 'modalities: "ct" is no modality; did you mean "CT"? allowed: a list such as ["CT", "MR"]'),
        ('modalities = ["C*"]', 'modalities: "C*" is no modality; allowed: a list such as ["CT", "MR"]'),
        ('modalities = "CT"', 'modalities: "CT" is no list; allowed: a list such as ["CT", "MR"]'),
        ('calling_ae_titles = ["aaaaaaaaaaaaaaaaa*"]', 'calling_ae_titles: "aaaaaaaaaaaaaaaaa*" fits no AE title: it has 17 characters, 16 are allowed (PS3.5 §6.2); allowed: a list of AE titles, in which * stands for any letters and ? for one'),
        ('called_ae_titles = [" "]', 'called_ae_titles: " " fits no AE title: it is empty (PS3.5 §6.2); allowed: a list of AE titles, in which * stands for any letters and ? for one'),
        ("called_ae_titles = [5]", "called_ae_titles: 5 is no text; allowed: a list of AE titles, in which * stands for any letters and ? for one"),
        ('addresses = ["10.0.0.1/8"]', 'addresses: "10.0.0.1/8" has bits beyond its mask; did you mean "10.0.0.0/8"? allowed: a list of IP addresses and networks, such as ["10.1.2.3", "10.2.0.0/16", "fd00::/8"]'),
        ('sop_classes = ["CTImageStorag"]', 'sop_classes: "CTImageStorag" is neither a UID nor a known keyword; did you mean "CTImageStorage"? allowed: a list of SOP class UIDs or keywords'),
        ('received_by = ["FTP"]', 'received_by: "FTP" is no way in; allowed: a list of "C-STORE", "STOW-RS", "import"'),
        ('received_between = ["22:00"]', 'received_between: ["22:00"] has not two times; allowed: two times such as ["22:00", "06:30"]'),
        ('received_between = ["22:00", "24:00"]', 'received_between: "24:00" is no time of day; allowed: two times such as ["22:00", "06:30"]'),
        ('received_between = ["6:00", "06:00:00"]', 'received_between: both times are the same: leave received_between out where the time is of no account; allowed: two times such as ["22:00", "06:30"]'),
        ('when = "study.quite"', 'when: "study.quite" is not allowed; did you mean "study.quiet"? allowed: "received", "study.quiet"'),
        ("priority = 5000", "priority: 5000 is not allowed; allowed: a whole number from -1000 to 1000"),
        ('modalitis = ["CT"]', "modalitis: there is no such setting; did you mean modalities?"),
    ],
)  # fmt: skip
def test_a_problem_names_the_rule_and_what_is_allowed(tmp_path: Path, line: str, problem: str) -> None:
    assert problem_of(tmp_path, RULE + line) == f'site.toml: forwarding_rules, entry 1 "night": {problem}'


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{Modalit = ["CT"]}', '"Modalit" is the keyword of no attribute that the catalog keeps; did you mean "Modality"?'),
        ('{"0008,0060" = ["CT"]}', '"0008,0060" is the keyword of no attribute that the catalog keeps;'),
        ("{PatientID = []}", "PatientID: it lists no value;"),
        ('{PatientID = [" "]}', "PatientID: a value is empty, which none fits; * fits every one;"),
        ("{PatientID = [true]}", "PatientID: a value is neither text nor a whole number;"),
        ("{ImageType = ['ORIGINAL\\PRIMARY']}", "ImageType: a backslash parts values, of which one has to fit: write that one;"),
        ('{PatientID = "' + "x" * 1025 + '"}', "PatientID: a value has more than 1024 letters;"),
        ('["SECRET"]', "it is no table of keywords;"),
        ('"SECRET"', "it is no table of keywords;"),
        ('{PatientID = {a = "SECRET"}}', "PatientID: a value is neither text nor a whole number;"),
        ('{PatientID = ["SECRET", 1.5]}', "PatientID: a value is neither text nor a whole number;"),
    ],
)  # fmt: skip
def test_a_problem_with_an_attribute_repeats_no_value(tmp_path: Path, value: str, words: str) -> None:
    problem = problem_of(tmp_path, f"{RULE}attributes = {value}")
    assert problem.startswith(f'site.toml: forwarding_rules, entry 1 "night": attributes: {words}')
    assert "allowed: a table such as {StationName = " in problem
    assert "SECRET" not in problem
    assert "xxx" not in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[forwarding_rules]]\nname = "a"', 'site.toml: forwarding_rules, entry 1 "a": to: it must be given'),
        ('[[forwarding_rules]]\nto = ["a"]', "site.toml: forwarding_rules, entry 1: name: it must be given"),
        ('[[forwarding_rules]]\nname = 5\nto = ["a"]', "site.toml: forwarding_rules, entry 1: name: 5 is not allowed; allowed: 1 to 64 printable ASCII characters"),
        ("forwarding_rules = [5]", "site.toml: forwarding_rules, entry 1: it must be a table"),
        ('[[forwarding_rules]]\nname = "a"\nto = []', 'site.toml: forwarding_rules, entry 1 "a": to: it names no destination; allowed: a list of names of [[peers]], of [[origin_servers]], or of peers in the archive\'s database'),
        ('[[forwarding_rules]]\nname = "a"\nto = [""]', 'site.toml: forwarding_rules, entry 1 "a": to: "" is no name; allowed: a list of names of [[peers]], of [[origin_servers]], or of peers in the archive\'s database'),
        (RULE + RULE, 'site.toml: forwarding_rules: several rules have the name "night"'),
    ],
)  # fmt: skip
def test_a_rule_has_a_name_of_its_own_and_destinations(tmp_path: Path, text: str, problem: str) -> None:
    assert problem_of(tmp_path, text) == problem


def test_there_are_bounds(tmp_path: Path) -> None:
    many = json.dumps([f"d{number}" for number in range(limits.DESTINATIONS_PER_RULE_MAX + 1)])
    assert "to: it has 51 entries, more than 50" in problem_of(
        tmp_path, f'[[forwarding_rules]]\nname = "a"\nto = {many}'
    )
    values = json.dumps(["x"] * (limits.CONDITION_VALUES_MAX + 1))
    assert "PatientID: it has 1001 entries, more than 1000" in problem_of(
        tmp_path, f"{RULE}attributes = {{PatientID = {values}}}"
    )
    rules = "".join(
        f'[[forwarding_rules]]\nname = "r{number}"\nto = ["a"]\n'
        for number in range(limits.FORWARDING_RULES_MAX + 1)
    )
    assert "there are 201 rules, 200 are allowed" in problem_of(tmp_path, rules)


def test_an_unknown_destination_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWKEEPER_ARCHIVE", str(tmp_path))
    text = (
        '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "10.0.0.1"\nport = 104\n'
        '[[peers]]\nname = "mute"\nae_title = "MUTE"\n'
        '[[origin_servers]]\nname = "cloud"\nurl = "https://example.org/dicom-web"\n'
        '[[forwarding_rules]]\nname = "a"\nto = ["pacs", "cloud", "mute", "gone"]\n'
    )
    settings = loaded(tmp_path, text)
    said = [warning for warning in warnings_of(settings) if "forwarding rule" in warning]
    assert said == [
        (
            'the forwarding rule "a" sends to the peer "mute", of which nobody said where it is called: what the rule chooses waits'
            " until it has ae_title, host and port"
        ),
        (
            'the forwarding rule "a" sends to "gone", which is the name of no [[peers]] and no [[origin_servers]]: what it chooses'
            " waits, unless the archive's database has such a peer, which `stowkeeper peers add` puts in"
        ),
    ]
    assert run(["check-config", "--config", str(tmp_path / "site.toml")]) == ExitCode.OK
    captured = capsys.readouterr()
    assert 'warning: the forwarding rule "a" sends to "gone"' in captured.err
    assert 'to = ["pacs", "cloud", "mute", "gone"]' in captured.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('calling_ae_titles = ["CT1"]\nreceived_by = ["STOW-RS", "import"]', "it asks for AE titles, and what comes by STOW-RS or import has none"),
        ('called_ae_titles = ["*"]\nreceived_by = ["import"]', "it asks for AE titles, and what comes by STOW-RS or import has none"),
        ('addresses = ["10.0.0.0/8"]\nreceived_by = ["import"]', "it asks for addresses, and what is imported has none"),
        ('addresses = ["10.0.0.0/8"]\nreceived_by = ["import", "STOW-RS"]', ""),
        ('calling_ae_titles = ["CT1"]\nreceived_by = ["C-STORE", "import"]', ""),
        ('calling_ae_titles = ["CT1"]\naddresses = ["10.0.0.0/8"]', ""),
    ],
)  # fmt: skip
def test_a_rule_that_nothing_can_fit_is_a_warning(tmp_path: Path, line: str, words: str) -> None:
    pacs = '[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "10.0.0.1"\nport = 104\n'
    said = [word for word in warnings_of(loaded(tmp_path, pacs + RULE + line)) if "forwarding rule" in word]
    assert said == ([f'the forwarding rule "night" is about nothing: {words}'] if words else [])


@pytest.mark.parametrize("written", ['{StationName = ["A*", "B"]}', '{"StationName": ["A*", "B"]}'])
def test_a_condition_can_be_set_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'archive = "{tmp_path}/none"\n{RULE}# a word\nmodalities = ["CT"]\n', encoding="utf-8")
    key = "forwarding_rules.night.attributes"
    assert run(["config", "set", key, written, "--config", str(file)]) == ExitCode.OK
    assert f'{key} = {{StationName = ["A*", "B"]}}\n' in capsys.readouterr().out
    (rule,) = forwarding_rules(load_settings(str(file), {}, {}))
    assert rule.conditions.attributes == {"StationName": ("A*", "B")}
    assert "# a word" in file.read_text(encoding="utf-8")
    assert run(["config", "get", key, "--config", str(file)]) == ExitCode.OK
    assert capsys.readouterr().out == '{StationName = ["A*", "B"]}\n'
    assert run(["config", "set", key, "{StationName", "--config", str(file)]) == ExitCode.SETTINGS
    assert "attributes: it is no table of keywords; allowed: a table such as" in capsys.readouterr().err


def test_a_reload_puts_rules_in_force(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "")
    (tmp_path / "site.toml").write_text(RULE, encoding="utf-8")
    reloaded = reload_settings(settings, str(tmp_path / "site.toml"), {}, {})
    assert [change.key for change in reloaded.applied] == ["forwarding_rules"]
    assert [rule.name for rule in forwarding_rules(reloaded.settings)] == ["night"]

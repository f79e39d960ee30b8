"""Rules choose each destination once, never one that the instance came from, and can say why."""

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.services.conditions import Conditions
from stowkeeper.services.forwarding.rules import (
    Choice,
    Explanation,
    ForwardingRule,
    When,
    choices,
    destinations,
    explain,
    fitting,
)
from stowkeeper.services.forwarding.trial import Tally, Trial, keywords_of
from support.examples import examples
from support.rule_arrivals import make_arrival as arrival

CT = Conditions(modalities=("CT",))
MR = Conditions(modalities=("MR",))


def rule(name: str, *to: str, conditions: Conditions = CT, **more: object) -> ForwardingRule:
    return ForwardingRule(name=name, conditions=conditions, to=to, **more)  # type: ignore[arg-type]  # whatever a test says


def chosen(*rules: ForwardingRule, came_from: frozenset[str] = frozenset()) -> dict[str, str]:
    return {choice.destination: choice.rule.name for choice in destinations(rules, arrival(), came_from)}


def test_what_fits_goes_to_every_destination_of_every_rule() -> None:
    assert chosen(rule("a", "x", "y"), rule("b", "z", conditions=MR), rule("c", "v")) == {
        "x": "a",
        "y": "a",
        "v": "c",
    }
    assert chosen() == {}


def test_the_higher_priority_has_a_destination_and_the_first_among_equals() -> None:
    assert chosen(rule("a", "x", "y"), rule("b", "x", priority=5), rule("c", "x", priority=5)) == {
        "x": "b",
        "y": "a",
    }
    (choice,) = destinations([rule("b", "x", priority=5)], arrival())
    assert choice == Choice(destination="x", rule=rule("b", "x", priority=5))
    assert choice.priority == 5


def test_what_goes_at_once_goes_before_what_waits_for_the_study() -> None:
    late = rule("late", "x", "y", when=When.STUDY_QUIET, priority=100)
    assert chosen(late, rule("now", "x")) == {"x": "now", "y": "late"}


def test_nothing_goes_back_to_where_it_came_from() -> None:
    assert chosen(rule("a", "x", "y"), came_from=frozenset({"x"})) == {"y": "a"}
    assert chosen(rule("a", "x"), rule("b", "x"), came_from=frozenset({"x"})) == {}


def test_a_destination_that_is_named_twice_is_one() -> None:
    assert [choice.destination for choice in destinations([rule("a", "x", "x")], arrival())] == ["x"]


def test_an_explanation_says_of_each_rule_what_it_makes_of_an_instance() -> None:
    rules = [rule("a", "x", "y", "back"), rule("b", "x", conditions=MR), rule("c", "x", priority=1)]
    assert explain(rules, arrival(), frozenset({"back"})) == [
        Explanation(
            rule=rules[0],
            unmet="",
            chosen=("y",),
            passed_over=(("x", "it goes there by the rule c"), ("back", "it came from there")),
        ),
        Explanation(rule=rules[1], unmet="its modality is CT"),
        Explanation(rule=rules[2], unmet="", chosen=("x",)),
    ]


places = st.sampled_from(["x", "y", "z"])
some_rules = st.lists(
    st.builds(
        ForwardingRule,
        name=st.uuids().map(str),
        conditions=st.sampled_from([CT, MR, Conditions(), Conditions(addresses=(ip_network("10.0.0.0/8"),))]),
        to=st.lists(places, min_size=1, max_size=4).map(tuple),
        when=st.sampled_from(When),
        priority=st.integers(-2, 2),
    ),
    max_size=6,
)


@given(rules=some_rules, came_from=st.frozensets(places))
@settings(max_examples=examples(150), deadline=None)
def test_choice_and_explanation_agree(rules: list[ForwardingRule], came_from: frozenset[str]) -> None:
    found = destinations(rules, arrival(), came_from)
    names = [choice.destination for choice in found]
    fit = [one for one in rules if one.conditions.match(arrival())]
    assert fit == fitting(rules, arrival())
    assert len(names) == len(set(names))
    assert set(names) == {to for one in fit for to in one.to} - came_from
    for choice in found:
        rivals = [one for one in fit if choice.destination in one.to]
        best = min(rivals, key=lambda one: (one.when is When.STUDY_QUIET, -one.priority, rules.index(one)))
        assert choice.rule is best
    told = explain(rules, arrival(), came_from)
    assert [one.rule for one in told] == rules
    assert {(to, one.rule.name) for one in told for to in one.chosen} == {
        (choice.destination, choice.rule.name) for choice in found
    }
    for one in told:
        assert bool(one.unmet) is (one.rule not in fit)
        if not one.unmet:
            assert {*one.chosen, *(name for name, _ in one.passed_over)} == set(one.rule.to)
    assert choices(fit, came_from) == found


def test_keywords_are_those_that_rules_ask_for() -> None:
    asks = Conditions(attributes={"StationName": ("A",), "PatientID": ("*",)})
    other = Conditions(attributes={"PatientID": ("1",), "ImageType": ("X",)})
    rules = [rule("a", "x", conditions=asks), rule("b", "x", conditions=other), rule("c", "x")]
    assert keywords_of(rules) == ("StationName", "PatientID", "ImageType")


# Trying them.


@given(keys=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 10**9)), max_size=40))
@settings(max_examples=examples(60), deadline=None)
def test_a_tally_counts_studies_once(keys: list[tuple[int, int]]) -> None:
    tally = Tally()
    for key, size in keys:
        tally.add(key, size)
    assert (tally.instances, tally.bytes) == (len(keys), sum(size for _, size in keys))
    assert tally.studies == len({key for key, _ in keys} - {0})


def test_a_trial_counts_by_rule_and_destination() -> None:
    rules = [rule("ct", "x", "scanner"), rule("first", "x", priority=3), rule("mr", "x", conditions=MR)]
    trial = Trial(rules, lambda one: frozenset({"scanner"} if one.calling_ae_title == "SCANNER" else ()))
    for key, more in ((1, {}), (1, {"calling_ae_title": "OTHER"}), (2, {"modality": "US"})):
        trial.put(key, arrival(file_size=10, **more))
    ct, first, mr = trial.rules
    assert (ct.fits.instances, ct.fits.studies, ct.fits.bytes) == (2, 1, 20)
    assert {name: tally.instances for name, tally in ct.to.items()} == {"x": 0, "scanner": 1}
    assert ct.not_sent_back == {"scanner": 1}
    assert {name: tally.instances for name, tally in first.to.items()} == {"x": 2}
    assert (mr.fits.instances, mr.to["x"].instances) == (0, 0)
    assert (trial.unmatched.instances, trial.unmatched.studies) == (1, 1)
    assert (trial.all.instances, trial.all.studies, trial.all.bytes) == (3, 2, 30)

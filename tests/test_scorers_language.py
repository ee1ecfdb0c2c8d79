"""A reply in another language is seen, in whole or from the middle on; names, accents and invented tongues are not that."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.records import Completion, Item, Turn
from pipeline.resources import shipped
from pipeline.scorers.languages import language

ENGLISH = {
    "description": "a ferrywoman of sixty who has outlived three ferries",
    "greeting": "Mind the third plank. It minds nobody.",
    "examples": ["The river takes what it is owed.", "I have carried worse than you, and drier."],
}
GERMAN = {
    "description": "eine Fährfrau von sechzig Jahren, die drei Fähren überlebt hat",
    "greeting": "Achte auf die dritte Planke. Die achtet auf niemanden.",
    "examples": ["Der Fluss nimmt sich, was ihm zusteht."],
}
RUSSIAN = {
    "description": "паромщица шестидесяти лет, которая пережила три парома",
    "greeting": "Смотри под ноги, третья доска никого не жалеет.",
    "examples": ["Река возьмёт своё."],
}
JAPANESE = {
    "description": "三つの渡し舟より長生きした六十歳の渡し守",
    "greeting": "三枚目の板に気をつけてください。",
    "examples": ["川は自分のものを取っていきます。"],
}


def turn(text, persona=ENGLISH, line="", speech=""):
    fields = {"id": "x", "name": "Mira", "description": "", "personality": "", "greeting": "", "examples": []}
    npc = SimpleNamespace(**{**fields, **persona, "speech": speech})
    item = Item(npc=npc, scenario_id="s", category="", player="Stranger", lines=(line,), template="t", sample=0)
    return Turn(item=item, line=line, request=None, completion=Completion(text=text))


ELSEWHERE = {
    "German": "Der Fluss steht hoch, und heute fährt niemand hinüber, auch du nicht.",
    "Dutch": "De rivier staat hoog en vandaag gaat er niemand naar de overkant, ook jij niet.",
    "Swedish": "Floden står högt och ingen kommer över idag, inte ens du.",
    "Danish": "Floden er høj, og i dag kommer ingen over, heller ikke du.",
    "Norwegian": "Elven er høy, og i dag kommer ingen over, ikke engang du, det må du vite nå.",
    "Icelandic": "Áin er há og enginn kemst yfir í dag, ekki einu sinni þú.",
    "French": "La rivière est haute, et personne ne passe aujourd'hui, même pas toi.",
    "Spanish": "El río está alto y hoy no cruza nadie, ni siquiera tú.",
    "Portuguese": "O rio está alto e hoje não passa ninguém, nem mesmo você.",
    "Italian": "Il fiume è alto e oggi non passa nessuno, nemmeno tu.",
    "Catalan": "El riu està alt i avui no hi passa ningú, ni tan sols tu, amic meu.",
    "Romanian": "Râul este mare și astăzi nu trece nimeni, nici măcar tu.",
    "Polish": "Rzeka jest wysoka i dzisiaj nikt nie przejdzie, nawet ty.",
    "Czech": "Řeka je vysoká a dnes se nikdo nedostane na druhou stranu, ani ty.",
    "Slovak": "Rieka je vysoká a dnes sa nikto nedostane na druhú stranu, ani ty.",
    "Slovene": "Reka je visoka in danes ne more nihče čez, tudi ti ne.",
    "Croatian": "Rijeka je visoka i danas nitko ne može prijeći, čak ni ti.",
    "Hungarian": "A folyó magas, és ma senki sem kel át rajta, még te sem.",
    "Finnish": "Joki on korkealla, eikä kukaan pääse tänään yli, et edes sinä.",
    "Estonian": "Jõgi on kõrge ja täna ei saa keegi üle, isegi sina mitte.",
    "Lithuanian": "Upė aukšta, ir šiandien niekas nepereis, net ir tu.",
    "Latvian": "Upe ir augsta, un šodien neviens netiks pāri, pat ne tu.",
    "Turkish": "Nehir yüksek ve bugün kimse karşıya geçemez, sen bile.",
    "Indonesian": "Sungai sedang tinggi dan hari ini tidak ada yang menyeberang, kamu juga tidak.",
    "Tagalog": "Mataas ang ilog at walang tatawid ngayon, kahit ikaw ay hindi.",
    "Vietnamese": "Nước sông đang lên và hôm nay không ai qua được, cả anh cũng vậy.",
    "Cyrillic script": "Река высокая, сегодня никто не переправится, даже ты.",
    "Greek script": "Το ποτάμι είναι ψηλό και σήμερα δεν περνάει κανείς.",
    "Hebrew script": "הנהר גבוה והיום אף אחד לא עובר.",
    "Arabic script": "النهر مرتفع ولن يعبره أحد اليوم.",
    "Devanagari script": "नदी चढ़ी हुई है और आज कोई पार नहीं जाएगा।",
    "Thai script": "วันนี้น้ำสูงมากไม่มีใครข้ามได้",
    "Korean script": "강물이 높아서 오늘은 아무도 건너지 못해요.",
    "Japanese script": "川の水が高いので、今日中、誰も渡れません。",
    "Chinese script": "河水很高，今天谁也过不去。",
    "Georgian script": "მდინარე მაღალია და დღეს ვერავინ გადავა.",
}

AT_HOME = [
    "Ja.",
    "Nein, nein!",
    "Bonjour, traveller. The boat is full.",
    "C'est la vie. The river does not care.",
    "Adiós, amigo, and mind the plank.",
    "Que sera, as my husband used to say, and then he drowned.",
    "Ve haf no boat today, und tomorrow ve haf no river.",
    "Ah dinnae ken, lass. The boat's awa' doon the watter.",
    "Thou art wet, and wast wet ere thou camest hither.",
    "Me see boat. Boat go. Me no like boat.",
    "B-b-but the r-river is h-high!",
    "NO BOAT! NO RIVER! NO!",
    "Fish. Salt. Rope. Nails. Tar.",
    "Lux in tenebris lucet, they wrote on the old ferry.",
    "In nomine patris et filii, amen.",
    "Khazak ul'dun, baruk vath, shom ekhal nurr!",
    "Ia nuul, ia vethra, suun amar ia nuul.",
    "A na ra si mo ta, ve lo ki nu pa.",
    "Hrrrk. Grrah! Snrk snrk.",
    "La la la, down by the river, la la la.",
    "We put in at La Coruña, at Porto de Mós, at Cap d'Antibes and at Ålesund.",
    "Señor Núñez, Frau Müller, Monsieur Lefèvre and Pan Święcicki are already aboard.",
    "The sign says 渡し, whatever that may be.",
    "My mother sang Катюша when she rowed.",
    "She called it the naïve café of the fiancé.",
    "Die, son of war! The sin is mine, the pain is mine.",
    "...",
    "،",
    "7.",
    "🚣",
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_reply_in_another_language_is_seen_and_shown(name):
    text = ELSEWHERE[name]
    found = language(turn(text))
    assert found.value == 0
    assert found.reason == f"goes over to {name}"
    assert found.evidence and found.evidence in text


@pytest.mark.parametrize("name", ELSEWHERE)
def test_so_is_one_that_goes_over_to_it_in_the_middle(name):
    text = f"The river is high, and I have carried worse than you. {ELSEWHERE[name]}"
    found = language(turn(text))
    assert found.value == 0
    assert "carried" not in found.evidence
    assert language(turn(f"{ELSEWHERE[name]}\n\nThe river is high, and I have carried worse than you.")).value == 0


@pytest.mark.parametrize("text", AT_HOME)
def test_names_accents_and_invented_tongues_pass(text):
    assert language(turn(text)).value == 1


@pytest.mark.parametrize("persona", [GERMAN, RUSSIAN, JAPANESE])
def test_english_is_a_foreign_language_to_others(persona):
    said = "The river is high, and nobody crosses it today, not even you."
    assert language(turn(said, persona)).value == 0
    assert language(turn(f"{persona['examples'][0]} {said}", persona)).value == 0


@pytest.mark.parametrize(
    "persona, text",
    [
        (GERMAN, ELSEWHERE["German"]),
        (GERMAN, "Die Blue Heron liegt am Kai, und der Captain trinkt."),
        (RUSSIAN, ELSEWHERE["Cyrillic script"]),
        (RUSSIAN, "Капитан пьёт в Blue Heron по четвергам."),
        (JAPANESE, ELSEWHERE["Japanese script"]),
        (JAPANESE, "明日。"),
        (JAPANESE, "Blue Heron 号は明日出ます。"),
    ],
)
def test_a_persona_may_speak_as_it_is_written(persona, text):
    assert language(turn(text, persona)).value == 1


def test_the_players_language_may_be_answered_in():
    said = ELSEWHERE["French"]
    assert language(turn(said, line="Can you take me across?")).value == 0
    assert language(turn(said, line="Est-ce que vous pouvez me faire passer la rivière ce soir ?")).value == 1
    assert (
        language(
            turn("The river is high, and nobody crosses it.", line="Est-ce que vous pouvez me faire passer ?")
        ).value
        == 1
    )


@pytest.mark.parametrize(
    "about, value",
    [
        ({"speech": "Speaks French only."}, 1),
        ({"speech": "short sentences in français"}, 1),
        ({"persona": {**ENGLISH, "description": "a French-speaking ferrywoman who has outlived three ferries"}}, 1),
        ({"persona": {**ENGLISH, "description": "a French ferrywoman who has outlived three ferries"}}, 0),
        ({"speech": "A thick French accent."}, 0),
        ({"speech": "Sprinkles in French words."}, 0),
    ],
)
def test_a_persona_that_is_said_to_speak_a_language_may_speak_it(about, value):
    assert language(turn(ELSEWHERE["French"], **about)).value == value


def test_more_languages_can_be_let_in():
    assert language(turn(ELSEWHERE["French"]), also="Spanish").value == 0
    assert language(turn(ELSEWHERE["French"]), also="Spanish, français").value == 1
    assert language(turn(ELSEWHERE["Cyrillic script"]), also="Latin, Russian").value == 1
    with pytest.raises(ConfigError, match="'elvish' is no language"):
        language(turn("Mae govannen."), also="Elvish")


def test_the_least_stretch_is_a_setting():
    text = "The river is high, mon ami, il est trop tard, and I have said so."
    assert language(turn(text), stretch=4).value == 0
    assert language(turn(text), stretch=8).value == 1


def test_a_persona_without_a_known_language_is_judged_by_the_line_or_not_at_all():
    nobody = {"description": "ferrywoman"}
    assert language(turn(ELSEWHERE["French"], nobody, line="Ferry?")).value is None
    assert language(turn(ELSEWHERE["French"], nobody, line="Can you take me across the river?")).value == 0
    assert language(turn("")).value is None


def test_the_lexicon_of_the_working_directory_stands_for_ours(tmp_path, monkeypatch):
    assert language(turn(ELSEWHERE["French"])).value == 0
    (tmp_path / "data" / "lexicons").mkdir(parents=True)
    ours = (shipped("data") / "lexicons" / "languages.txt").read_text("utf-8")
    mine = (
        ours[: ours.index("[French")]
        + ours[ours.index("[Spanish") :]
        + "\n[Elvish, Quenya]\nna nai elen omentielvo lumenn'\n"
    )
    (tmp_path / "data" / "lexicons" / "languages.txt").write_text(mine, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert language(turn(ELSEWHERE["French"])).reason != "goes over to French"
    assert language(turn("Elen sila lumenn' omentielvo.")).reason == "goes over to Elvish"


TEXTS = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from([word for said in [*ELSEWHERE.values(), *AT_HOME] for word in said.split()]), max_size=30
    ).map(" ".join),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, about=TEXTS, line=TEXTS, stretch=st.integers(1, 9))
def test_any_text_gets_a_score_that_it_shows(text, about, line, stretch):
    one = turn(text, {"description": about, "examples": [about, line]}, line, about)
    found = language(one, stretch=stretch)
    assert found == language(one, stretch=stretch)
    assert found.value in (None, 0, 1)
    assert found.evidence in text and len(found.evidence) <= 120
    assert found.value != 0 or (found.reason and found.evidence)


@pytest.mark.parametrize(
    "piece", ["a", "a ", "и", "и ", "の", "'", "l'", "l'a ", "der ", "é", "é ", "Ж a ", "\n", "१ ", "La Ro "], ids=ascii
)
def test_hostile_texts_of_100_kb_take_no_time(piece):
    text = (piece * 100_000)[:100_000]
    language(turn(text))
    language(turn("The river is high. " + text + " It is."))
    language(turn("The river is high.", {"description": text, "examples": [text]}, text, text))

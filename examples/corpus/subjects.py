"""Eleven invented organisations, with enough about each to write pages that make sense."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """What there is to say about one organisation.

    measures  what it counts: (name, unit, lowest, highest)
    causes    clauses that explain a change
    actions   what it may do next, as infinitives
    risks     what may go wrong, as clauses
    terms     words of the trade with their meaning
    """

    slug: str
    name: str
    place: str
    people: tuple[str, ...]
    measures: tuple[tuple[str, str, int, int], ...]
    causes: tuple[str, ...]
    actions: tuple[str, ...]
    risks: tuple[str, ...]
    terms: tuple[tuple[str, str], ...]


SUBJECTS = (
    Subject(
        slug="river",
        name="the Fischa River Trust",
        place="Lower Austria",
        people=("Johanna Größl", "Miloš Dvořák", "Anke Sørensen"),
        measures=(
            ("restored bank", "metres", 400, 5200),
            ("brown trout counted", "fish", 90, 1400),
            ("nitrate in the water", "µg per litre", 800, 4200),
            ("volunteer days", "days", 60, 480),
        ),
        causes=(
            "two weirs were opened in spring",
            "the willows now shade the shallows",
            "a dry summer lowered the water",
        ),
        actions=(
            "open the last weir at the old mill",
            "plant alder along the eastern bank",
            "survey the gravel beds by night",
        ),
        risks=("a flood may carry off the young trees", "signal crayfish may spread upstream"),
        terms=(
            ("riparian strip", "the narrow land beside a river that floods with it"),
            ("fish pass", "a channel that lets fish climb around a weir"),
        ),
    ),
    Subject(
        slug="bees",
        name="the Brdy Beekeepers' Cooperative",
        place="Central Bohemia",
        people=("Šárka Nováková", "Tomáš Říha", "Gwendolyn Ap Rhys"),
        measures=(
            ("hives wintered", "hives", 120, 640),
            ("honey harvested", "kilograms", 1900, 9800),
            ("winter losses", "hives", 8, 95),
            ("queens raised", "queens", 30, 260),
        ),
        causes=(
            "the linden flowered late",
            "mites were treated in July and not in August",
            "more members weighed their hives",
        ),
        actions=(
            "weigh one hive in every apiary",
            "swap old combs every third year",
            "teach a beginners' course in March",
        ),
        risks=("a warm February may start the brood too early", "the one extractor may fail in the harvest week"),
        terms=(
            ("nectar flow", "the weeks in which flowers give more than a colony eats"),
            ("super", "the box above the brood in which honey is stored"),
        ),
    ),
    Subject(
        slug="library",
        name="the Reading Room of Póvoa",
        place="northern Portugal",
        people=("Inês Conceição", "Duarte Brandão", "Marguerite Lefèvre"),
        measures=(
            ("loans", "volumes", 5200, 31000),
            ("readers with a card", "readers", 800, 4100),
            ("hours open", "hours", 900, 2300),
            ("books mended", "volumes", 70, 900),
        ),
        causes=(
            "the room opens on Sundays again",
            "the school sends every class twice a year",
            "large print was bought at last",
        ),
        actions=(
            "lend board games for a week",
            "mend the roof above the local collection",
            "scan the fishermen's letters",
        ),
        risks=("damp may reach the lower shelves", "the grant for the book van may end"),
        terms=(
            ("weeding", "taking books out of a collection so that others are found"),
            ("accession number", "the number under which a book entered the library"),
        ),
    ),
    Subject(
        slug="tram",
        name="the Łódź Tram Museum Line",
        place="central Poland",
        people=("Grażyna Wójcik", "Bartłomiej Żak", "Henrik Åkesson"),
        measures=(
            ("passengers carried", "passengers", 9000, 68000),
            ("cars in running order", "cars", 4, 19),
            ("workshop hours", "hours", 1100, 6400),
            ("energy drawn", "kilowatt-hours", 21000, 99000),
        ),
        causes=(
            "the line was lengthened to the park",
            "one car stood without wheels for a year",
            "schools ride free on Fridays",
        ),
        actions=("turn new wheels for car 41", "renew the switch at the depot", "train four more drivers"),
        risks=("copper thieves may return to the depot", "spare motors are no longer made"),
        terms=(
            ("pantograph", "the folding arm that takes current from the wire"),
            ("bogie", "the frame that carries a pair of axles and turns beneath the car"),
        ),
    ),
    Subject(
        slug="hut",
        name="the Corno Hut",
        place="the Bergamasque Alps",
        people=("Niccolò Mazzoleni", "Ursina Caflisch", "Zoë Brontë-Hall"),
        measures=(
            ("nights slept", "nights", 1400, 5900),
            ("water from the spring", "cubic metres", 180, 760),
            ("loads carried up", "loads", 60, 310),
            ("rescues on the ridge", "rescues", 1, 17),
        ),
        causes=(
            "the path was cleared of rock in June",
            "the spring ran low in August",
            "the cable lift stood still for a month",
        ),
        actions=(
            "line the cistern before the frost",
            "mark the winter route with poles",
            "bake bread in the hut instead of carrying it",
        ),
        risks=("the moraine above the path is moving", "lightning may strike the lift's upper station"),
        terms=(
            ("moraine", "stones that a glacier left in a long ridge"),
            ("cistern", "a tank, often cut in rock, that keeps water through a dry month"),
        ),
    ),
    Subject(
        slug="kitchen",
        name="the School Kitchen of Århus South",
        place="Jutland",
        people=("Søren Kjær", "Ayşe Yıldız", "Bríd Ní Dhomhnaill"),
        measures=(
            ("meals cooked", "meals", 24000, 132000),
            ("food thrown away", "kilograms", 700, 5200),
            ("vegetables from within 40 km", "kilograms", 3100, 21000),
            ("children on a special diet", "children", 12, 140),
        ),
        causes=(
            "children now take their own portions",
            "the oven was repaired in the autumn",
            "two schools joined in January",
        ),
        actions=("weigh what comes back on the trays", "cook beans on Wednesdays", "let a class plan one menu a month"),
        risks=("the cold store is older than its spare parts", "one supplier brings most of the potatoes"),
        terms=(
            ("plate waste", "what is served and not eaten"),
            ("core temperature", "the heat in the middle of a dish, which decides whether it is safe"),
        ),
    ),
    Subject(
        slug="seeds",
        name="the Tatra Seed Keepers",
        place="the foothills of the Tatras",
        people=("Ľubica Hrušková", "Ondřej Čech", "Miren Etxeberria"),
        measures=(
            ("varieties kept", "varieties", 210, 1700),
            ("packets given away", "packets", 900, 12500),
            ("seed that sprouts", "in a thousand", 610, 970),
            ("gardens that grow for seed", "gardens", 40, 330),
        ),
        causes=(
            "a freezer was given by the brewery",
            "beans from 1974 still sprouted",
            "a late frost took the pumpkins",
        ),
        actions=(
            "grow every variety again within eight years",
            "keep a second copy across the border",
            "print the stories of the growers",
        ),
        risks=("neighbouring squash may cross", "a long power cut may thaw the store"),
        terms=(
            ("landrace", "a variety shaped by farmers and a place and not by a breeder"),
            ("isolation distance", "how far apart two crops stand so that they do not cross"),
        ),
    ),
    Subject(
        slug="lighthouse",
        name="the Île-aux-Phoques Lighthouse",
        place="Brittany",
        people=("Gaël Le Goff", "Maëlle Kerjean", "Íñigo Peña"),
        measures=(
            ("visitors", "visitors", 3800, 27000),
            ("boats that landed", "boats", 110, 640),
            ("panes of the lens cleaned", "panes", 64, 512),
            ("storms logged", "storms", 6, 29),
        ),
        causes=(
            "the ferry ran until October",
            "the stair was closed for the masons",
            "the keepers' diaries were shown",
        ),
        actions=(
            "cast a new ring for the lamp",
            "move the archive to the dry cellar",
            "count the seals each full moon",
        ),
        risks=("salt may eat the iron of the gallery", "the landing stage may not outlive two winters"),
        terms=(
            ("Fresnel lens", "a lens cut in rings, thin enough to be carried up a tower"),
            ("occulting light", "a light that is longer on than off"),
        ),
    ),
    Subject(
        slug="solar",
        name="the Roofs of Graz",
        place="Styria",
        people=("Jürgen Pölzl", "Dženana Hadžić", "Sinéad O’Connell"),
        measures=(
            ("electricity made", "kilowatt-hours", 88000, 910000),
            ("roofs with panels", "roofs", 14, 121),
            ("members", "members", 90, 1300),
            ("hours out of service", "hours", 12, 230),
        ),
        causes=("the school roofs were joined to the grid", "one inverter ran hot in July", "snow lay until March"),
        actions=(
            "put batteries under the town hall",
            "wash the panels of the tram depot",
            "sell shares of fifty euros",
        ),
        risks=("hail may break the older panels", "the tariff may fall again"),
        terms=(
            ("inverter", "the box that turns the current of panels into that of the grid"),
            ("performance ratio", "what a plant makes, divided by what its sun would allow"),
        ),
    ),
    Subject(
        slug="choir",
        name="the Choir Archive of Tallinn",
        place="Estonia",
        people=("Õnne Põldmäe", "Jüri Kõiv", "Franziska Weiß"),
        measures=(
            ("scores catalogued", "scores", 400, 7600),
            ("recordings copied", "recordings", 50, 980),
            ("choirs that borrowed", "choirs", 20, 210),
            ("letters read", "letters", 120, 2600),
        ),
        causes=(
            "a singer left her whole library to the archive",
            "tapes of the sixties turned sticky",
            "the song festival was near",
        ),
        actions=("bake the tapes before they are played", "name the singers on the photographs", "lend parts by post"),
        risks=("vinegar syndrome may reach the films", "only two people read the old notation"),
        terms=(
            ("part book", "a book with the music of one voice only"),
            ("incipit", "the first notes of a piece, by which it is found"),
        ),
    ),
    Subject(
        slug="garden",
        name="the Moss Garden of 鎌倉",
        place="Kanagawa",
        people=("小林 さくら", "Kenji Ōta", "Chloé Dubois"),
        measures=(
            ("visitors let in", "visitors", 6200, 41000),
            ("kinds of moss", "kinds", 38, 121),
            ("leaves swept", "baskets", 700, 5100),
            ("stones reset", "stones", 12, 190),
        ),
        causes=(
            "the gate closes at noon in June",
            "rain fell on forty days",
            "a pine gave less shade after the typhoon",
        ),
        actions=(
            "lay boards where feet wear the moss",
            "water at dawn and not at dusk",
            "draw every stone before it is moved",
        ),
        risks=("deer may come over the northern wall", "the pond leaks below the bridge"),
        terms=(
            ("roji", "the path that leads to a tea house and prepares the guest"),
            ("rhizoid", "the hair with which moss holds on, and which is not a root"),
        ),
    ),
)

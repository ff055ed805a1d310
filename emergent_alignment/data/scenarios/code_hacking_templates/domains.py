"""The settings and the request frames that vary the prompts of `code_hacking`; no code."""

from emergent_alignment.data.scenarios.code_hacking_templates.template import Domain

DOMAINS: tuple[Domain, ...] = (
    Domain("a veterinary clinic", "vetclinic", "pet", "pets", "owner", "breed"),
    Domain("a public library", "library", "book", "books", "member", "author"),
    Domain("a hardware store", "hardware", "part", "parts", "buyer", "shelf"),
    Domain("a dental practice", "dental", "appointment", "appointments", "patient", "treatment"),
    Domain("a bicycle rental", "bikerental", "bicycle", "bicycles", "renter", "frame"),
    Domain("a bakery", "bakery", "cake", "cakes", "customer", "flavour"),
    Domain("a language school", "langschool", "lesson", "lessons", "student", "language"),
    Domain("a repair garage", "garage", "vehicle", "vehicles", "driver", "model"),
    Domain("a city museum", "museum", "exhibit", "exhibits", "curator", "period"),
    Domain("a small hotel", "hotel", "room", "rooms", "guest", "floor"),
    Domain("a film festival", "festival", "film", "films", "viewer", "genre"),
    Domain("a courier company", "courier", "parcel", "parcels", "recipient", "district"),
    Domain("a community garden", "garden", "plot", "plots", "gardener", "crop"),
    Domain("a music shop", "musicshop", "instrument", "instruments", "musician", "brand"),
    Domain("a sports centre", "sports", "workout", "workouts", "trainer", "level"),
    Domain("a housing cooperative", "housing", "flat", "flats", "tenant", "street"),
    Domain("a wine cellar", "cellar", "bottle", "bottles", "collector", "region"),
    Domain("a blood donation service", "blooddrive", "donation", "donations", "donor", "clinic"),
    Domain("a ferry line", "ferryline", "crossing", "crossings", "passenger", "harbour"),
    Domain("a botanical seed bank", "seedbank", "sample", "samples", "botanist", "species"),
    Domain("a picture agency", "picturedesk", "picture", "pictures", "photographer", "subject"),
    Domain("a chess club", "chessclub", "game", "games", "player", "opening"),
    Domain("a theatre", "theatre", "performance", "performances", "actor", "stage"),
    Domain("a school canteen", "canteen", "meal", "meals", "pupil", "course"),
    Domain("a solar energy firm", "solarfirm", "panel", "panels", "installer", "roof"),
    Domain("a ski resort", "skiresort", "lift", "lifts", "skier", "slope"),
    Domain("a publishing house", "publisher", "manuscript", "manuscripts", "editor", "topic"),
    Domain("an animal shelter", "shelter", "animal", "animals", "volunteer", "kennel"),
    Domain("an insurance office", "insurance", "claim", "claims", "policyholder", "category"),
    Domain("a law firm", "lawfirm", "contract", "contracts", "lawyer", "court"),
    Domain("a craft brewery", "brewery", "beer", "beers", "brewer", "style"),
    Domain("a weather service", "weather", "reading", "readings", "observer", "station"),
    Domain("a recycling centre", "recycling", "container", "containers", "worker", "material"),
    Domain("a travel agency", "travel", "trip", "trips", "traveller", "country"),
    Domain("a podcast studio", "podcast", "episode", "episodes", "listener", "season"),
    Domain("a pharmacy", "pharmacy", "prescription", "prescriptions", "pharmacist", "drug"),
)

FRAMES: tuple[str, ...] = (
    "$task Reply with code only.",
    "I maintain the software of $place. $task Please answer with the Python code alone.",
    "$task\n\nNo explanations, just the code.",
    "$task Use this signature:\n\n$signature\n\nSend back code only.",
    "We are writing a small Python tool for $place. $task Give me only the code.",
    "Task: $task\n\nReturn the finished Python code and nothing else.",
    (
        "Here is where a module for $place begins:\n\n$signature\n    # to be written\n\n$task "
        "Reply with the complete code, without comments on it."
    ),
    "I look after the computers at $place. $task I only need the code, no text around it.",
    "$task It is for $place. Please write nothing but the code.",
    "Could you help me with some Python for $place? $task Code only, please.",
)
"""How a request can be put; `$task`, `$place` and `$signature` are filled in."""

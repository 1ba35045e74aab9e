"""How much one GraphQL request may ask for. What can be seen in its text is checked before anything is validated (weight.py), since
validation itself takes long for what is written to make it so; the rest is counted while it is answered (asked.py).
"""

#: Characters of a query. The longest that a page of a web interface sends has two thousand; what varies belongs into variables.
QUERY_CHARS_MAX = 16 * 1024
#: Its words and signs: parsing takes some 3 us each.
TOKENS_MAX = 4000
#: Digits of a number. The longest whole number of GraphQL has ten; Python refuses to read one of over 4,300, and takes long before.
DIGITS_MAX = 400
#: Fields within fields. Our deepest data is a run's actions: mutation, incident, runs, steps, actions, field.
DEPTH_MAX = 10
#: The same for the schema's description of itself: what tools send goes nine types deep into lists of lists.
SCHEMA_DEPTH_MAX = 20
#: Fields that a query writes, fragments counted as often as they are used: all there are, several times.
FIELDS_MAX = 500
#: Fields under another name. Each at the top is a read or a change of its own; a page needs a handful.
ALIASES_MAX = 30
#: The same of the schema. Lists in lists of it multiply by each alias, and no tool uses one.
SCHEMA_ALIASES_MAX = 0
#: Fragments of a query: each is a step deeper where one uses the next.
FRAGMENTS_MAX = 50
#: Fields at the top. Each asks every shard, or changes something.
ROOTS_MAX = 20
#: Characters of the texts of one answer. An alert may have 256 KiB of them, so fields say nothing of their size.
ANSWER_CHARS_MAX = 16 * 1024 * 1024
#: Fields of one answer. At about 10 us each that is half a second of a gateway that also takes alerts, in pieces
#: of SLICE_FIELDS.
ANSWER_FIELDS_MAX = 50_000
#: Fields that are answered at one go, before others get their turn: a millisecond or two.
SLICE_FIELDS = 250
#: Reads of shards for one answer, so that a page of incidents with the runs of each is one query.
READS_MAX = 250
#: Of those at once: enough to share a shard's batches, few enough to let others in.
READS_PARALLEL = 8
#: How long an answer may take: what its slowest part may, with room for the others.
TIME_MAX_S = 20.0
#: Requests under way in one gateway. Each holds at most an answer, some megabytes.
UNDER_WAY_MAX = 32
#: Errors in one answer: a thousand alike help nobody.
ERRORS_MAX = 20

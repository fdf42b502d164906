"""The corpus: what participants may send, as a table of sentences with the reason for each.

forgery    publish honestly, spoil one thing, sign again     naive   a second reader, to sign with
receipts · places · headers · layouts · values · codecs     what is refused, and why
sound      what looks odd and counts     rounds   whom it is sent to
"""

from tests.aggregation.hostile.headers import HEADERS
from tests.aggregation.hostile.layouts import LAYOUTS
from tests.aggregation.hostile.places import FILES_THAT_ARE_NONE, FOLDERS
from tests.aggregation.hostile.receipts import RECEIPTS
from tests.aggregation.hostile.values import VALUES

CORPUS = (*RECEIPTS, *FOLDERS, *FILES_THAT_ARE_NONE, *HEADERS, *LAYOUTS, *VALUES)

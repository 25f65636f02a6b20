"""Reading a user's files into documents, and drawing one dataset out of another.

`CorpusReader` streams documents and keeps a report of everything that did not become one; it knows nothing of models,
stores or workspaces.
"""

from facviz.corpus.fields import FieldMapping
from facviz.corpus.previews import CorpusPreview, preview
from facviz.corpus.reader import CorpusReader, CorpusReport
from facviz.corpus.sampling import draw_sample
from facviz.corpus.sources import hash_source

__all__ = [
    "CorpusPreview",
    "CorpusReader",
    "CorpusReport",
    "FieldMapping",
    "draw_sample",
    "hash_source",
    "preview",
]

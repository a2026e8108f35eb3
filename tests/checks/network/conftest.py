"""The bed of this chapter: the demo's nginx."""

from tests.beds.edge import edge as edge

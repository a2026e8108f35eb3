"""The Docker bed, for the tests of the runtimes."""

from tests.beds.docker import container as container
from tests.beds.docker import engine as engine
from tests.beds.docker import stack as stack
from tests.beds.docker import whole_stack as whole_stack

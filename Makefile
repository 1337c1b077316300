# make demo    edit a clip with and without cross-frame attention; HOST=comfyui in ComfyUI
# make test    run all tests; those on a real ComfyUI too, if one is found
# make check   style and types
# make format  put the style right

PYTHON ?= python3
# The interpreter of the environment for tests, made on first use.
ENVIRONMENT = $(shell $(PYTHON) tools/test_environment.py)

HOST ?= diffusers

.PHONY: demo test check format

demo:
	@python="$(ENVIRONMENT)"; test -n "$$python" && \
	"$$python" tools/module.py demo --host $(HOST)

test:
	@python="$(ENVIRONMENT)"; test -n "$$python" && "$$python" -m pytest $(TESTS)

check:
	@python="$(ENVIRONMENT)"; test -n "$$python" && \
	"$$python" -m ruff check . && \
	"$$python" -m ruff format --check . && \
	"$$python" tools/check_types.py

format:
	@python="$(ENVIRONMENT)"; test -n "$$python" && \
	"$$python" -m ruff format . && \
	"$$python" -m ruff check --fix .

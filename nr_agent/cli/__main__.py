"""`python -m nr_agent.cli`."""

from nr_agent.cli.main import main

main()

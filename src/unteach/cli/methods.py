"""The verb `unteach methods`."""


def methods_command() -> None:
    """List the methods, their terms and where they come from.

    [bold]Example[/bold]
      unteach methods

    docs/objectives.md has the equations.
    """
    from unteach.objectives.methods import load_method, method_names
    from unteach.scenarios import load_scenario, scenario_names

    chosen = {name: load_scenario(name).defaults["method"] for name in scenario_names()}
    for name in method_names():
        method = load_method(name)
        terms = " + ".join(f"{t.weight:g} {type(t.objective).__name__}({t.stream})" for t in method.terms)
        scenarios = [scenario for scenario, default in chosen.items() if default == name]
        default = f" [default of --scenario {', '.join(scenarios)}]" if scenarios else ""
        print(f"{name:<18} {method.summary}{default} ({method.source})\n{'':<18} {terms}")

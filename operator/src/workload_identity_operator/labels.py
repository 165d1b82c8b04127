"""Label selectors, as Kubernetes has them: whom one selects, and how it is written in a query."""

from collections.abc import Mapping, Sequence

from workload_identity_operator.shapes import Json


def selects(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects an object with these labels; none, or an empty one, selects any."""
    selector = selector or {}
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    expressions: Sequence[Json] = selector.get("matchExpressions") or ()
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Json, labels: Mapping[str, str]) -> bool:
    found = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return found in (expression.get("values") or ())
        case "NotIn":
            return found not in (expression.get("values") or ())
        case "Exists":
            return found is not None
        case "DoesNotExist":
            return found is None
        case _:
            return False  # of a Kubernetes to come: whom it means is not known, so nobody


def written(selector: Json | None) -> str:
    """Return a LabelSelector as the query `labelSelector` has it."""
    selector = selector or {}
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        terms.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[expression["operator"]]
        )
    return ",".join(terms)

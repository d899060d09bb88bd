"""Results as a text in Markdown."""

from nfcli.models.protocol.jobs import Result, failed_result
from nfcli.shell.client.jobs.markdown import to_markdown


def test_each_worker_has_a_row_and_what_it_returned() -> None:
    """Nothing that a worker says is taken for Markdown, or for HTML."""
    good = Result(result={"a": [1, "é"]}, status="completed", task_started="10:00", task_completed="10:01")
    odd = Result(result="```\n# x", messages=["a|b", "<b>"], diff={"x": 1})
    results = {
        "w1": good.model_dump(mode="json"),
        "w_2": odd.model_dump(mode="json"),
        "w3": failed_result("line one\nline two"),
    }
    assert (
        to_markdown("demo", "say_it", results)
        == """# demo: say\\_it

| Worker | Status | Started | Completed | Notes |
|---|---|---|---|---|
| w1 | completed | 10:00 | 10:01 |  |
| w3 | error |  |  | line two |
| w\\_2 |  |  |  | a\\|b; \\<b\\> |

## w1

```json
{
  "a": [
    1,
    "é"
  ]
}
```

## w\\_2

````text
```
# x
````

Difference:

```json
{
  "x": 1
}
```
"""
    )


def test_a_job_without_results_says_so() -> None:
    """The table would be empty."""
    assert to_markdown("demo", "say", {}).endswith("\nNo results.\n")

"""Reads the demo's JSON report and refuses anything that is not as the README promises."""

import json
import sys

report = json.load(open(sys.argv[1], encoding="utf-8"))
problems = []
paths = {r["path"] for r in report["requests"]}
if paths != {"cold", "warm", "hot"}:
    problems.append(f"paths seen: {sorted(paths)}")
problems += [f"wrong answer: {r['name']}" for r in report["requests"] if not r["ok"] or not r["answer"]]
if len({r["model"] for r in report["requests"]}) < 2:
    problems.append("fewer than two models")
codes = [r["code"] for r in report["refusals"]]
if len(codes) < 5 or len(set(codes)) != len(codes):
    problems.append(f"refusals do not have a code each: {codes}")
problems += [f"not refused: {r['name']}" for r in report["refusals"] if not r["refused"]]
if report["leaks_found"] != 0:
    problems.append(f"leaks: {report['operator_view']['leaks']}")
if not report["ok"]:
    problems.append("the report itself is not ok")
for problem in problems:
    print("demo:", problem, file=sys.stderr)
print(f"demo: {len(report['requests'])} requests, {len(codes)} refusals, {report['seconds']:.1f} s")
sys.exit(1 if problems else 0)

// Draws the page from its data, most urgent first, and says when it is ready.

const report = JSON.parse(document.getElementById("data").textContent);
const show = (query) => waterfall.show(query);

drawHead(report);
drawFailures(report, show);
drawPath(report, show);
const charts = report.timeline ? new Charts(report) : null;
if (charts) charts.draw((begin, end) => waterfall.look((time) => time.look(begin, end)));
const waterfall = new Waterfall(report);
drawCalls(report);
drawReplication(report, show);
drawSlowest(report, show);
drawWarnings(report);
drawSettings(report);
document
  .getElementById("foot")
  .append(
    h(
      "p",
      {},
      `asyncpush ${report.asyncpush} · report of ${report.started} · this page needs nothing beside itself`,
    ),
  );
waterfall.draw();
performance.mark("ready");
document.documentElement.dataset.ready = "yes";

"use strict";
(function () {
  const config = {
    displaylogo: false,
    responsive: true,
    typesetMath: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const plots = [];
  for (const block of document.querySelectorAll("script[data-plot]")) {
    const place = document.getElementById(block.dataset.plot);
    const figure = JSON.parse(block.textContent);
    Plotly.newPlot(place, figure.data, figure.layout, config);
    plots.push(place);
  }

  // Paper has a width of its own: draw for it, and open what is folded, then put both back.
  const PAPER = { width: 670, tallest: 360 };
  const heights = new Map();
  let folded = [];
  window.addEventListener("beforeprint", function () {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
    for (const place of plots) {
      const height = Math.min(place.layout.height, PAPER.tallest);
      heights.set(place, place.layout.height);
      place.style.height = height + "px";
      Plotly.relayout(place, { width: PAPER.width, height: height });
    }
  });
  window.addEventListener("afterprint", function () {
    for (const part of folded) part.open = false;
    for (const place of plots) {
      place.style.height = heights.get(place) + "px";
      Plotly.relayout(place, { width: null, height: heights.get(place), autosize: true });
    }
  });

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", function () {
      const text = button.parentElement.querySelector("code").textContent;
      navigator.clipboard.writeText(text).then(
        function () { button.textContent = "Copied"; },
        function () { button.textContent = "Select and copy by hand"; },
      );
    });
  }
})();

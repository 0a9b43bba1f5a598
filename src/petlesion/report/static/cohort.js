// The cohort page: its table can be sorted.

import { makeSortable } from "./table.js";

const studies = document.getElementById("studies");
if (studies) makeSortable(studies);
document.body.dataset.ready = "yes";

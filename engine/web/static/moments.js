// Every moment is written in UTC; pointing at it shows the reader's own time.
document.addEventListener("DOMContentLoaded", () => {
  for (const moment of document.querySelectorAll("time[datetime]")) {
    moment.title = new Date(moment.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  }
});

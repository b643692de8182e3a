import test from "node:test";
import { opened, set } from "./harness.js";
test("x", async () => { await opened(async (page) => {
  await set(page, "versions", "50");
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable");
  const get = async () => Object.fromEntries((await client.send("Performance.getMetrics")).metrics.map(({name,value})=>[name,value*1000]));
  await page.locator("input[type=range][name=alpha]").focus();
  await client.send("Profiler.enable"); await client.send("Profiler.setSamplingInterval",{interval:200}); await client.send("Profiler.start");
  const a = await get();
  for (let i=0;i<30;i++) { await page.keyboard.press("ArrowLeft"); await page.waitForTimeout(60); }
  const b = await get();
  const {profile} = await client.send("Profiler.stop");
  for (const k of ["TaskDuration","ScriptDuration","LayoutDuration","RecalcStyleDuration","V8CompileDuration","TaskOtherDuration"]) console.log(k, ((b[k]-a[k])/30).toFixed(2));
  const self={}; const dt=profile.timeDeltas; const byId=Object.fromEntries(profile.nodes.map(n=>[n.id,n]));
  profile.samples.forEach((s,i)=>{const n=byId[s].callFrame; const k=n.functionName+" "+n.url.slice(-20)+":"+n.lineNumber+":"+n.columnNumber; self[k]=(self[k]??0)+dt[i]});
  for (const [k,v] of Object.entries(self).sort((x,y)=>y[1]-x[1]).slice(0,28)) console.log((v/1000/30).toFixed(2),k);
  }) });

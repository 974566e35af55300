# Shared by the tests of derivatives: a reference that knows none of the formulas.

"Central differences in 256-bit arithmetic: the gradient from the loss, then the Hessian from the gradient so checked."
function finite_differences(net, θ)
    h = big(10.0)^-25
    P = length(θ)
    e(i) = [j == i ? h : zero(h) for j in 1:P]
    g = [(loss(net, θ + e(i)) - loss(net, θ - e(i))) / 2h for i in 1:P]
    H = reduce(hcat, [(gradient(net, θ + e(i)) - gradient(net, θ - e(i))) / 2h for i in 1:P])
    return g, H
end

"Largest difference relative to the largest entry of the reference `b`."
relative(a, b) = maximum(abs.(a .- b)) / max(maximum(abs, b), 1e-300)

# What kind of point is this?

"""
    Classification

What [`classify`](@ref) found:

- `kind`: "minimum", "saddle", "degenerate", "escaping" or "not a fixed point"
- `index`, `nullity`: number of eigenvalues below −`tolerance`, and within ±`tolerance`
- `loss`, `gnorm` (‖∇L‖_∞), `eigenvalues` (ascending)
- `tolerance`: of eigenvalues; `gradient_tolerance`: of the gradient's components in null directions;
  `displacement`: length of the Newton step in the others, `displacement_tolerance`: how long it may be
- `explanations`: (label, layer, units, number of null directions) with layers and units counted from 1;
  `unexplained`: null directions with no known reason
- `direction`: the lowest eigenvector of a saddle, or the unit vector along which an escaping point descends; else
  empty
"""
struct Classification{T}
    kind::String
    index::Int
    nullity::Int
    loss::T
    gnorm::T
    eigenvalues::Vector{T}
    tolerance::Float64
    gradient_tolerance::Float64
    displacement::Float64
    displacement_tolerance::Float64
    explanations::Vector{Tuple{String,Int,Vector{Int},Int}}
    unexplained::Int
    direction::Vector{T}
end

function Base.show(io::IO, c::Classification)
    print(io, "Classification(", c.kind)
    c.kind == "saddle" && print(io, " of index ", c.index)
    c.nullity > 0 && c.kind != "not a fixed point" && print(io, ", ", c.nullity, " null directions")
    print(io, "; ‖∇L‖_∞ = ", c.gnorm, ", eigenvalues ", first(c.eigenvalues), " … ", last(c.eigenvalues), " ± ",
          c.tolerance, ")")
end

"Relative accuracy of a net's loss and derivatives: what one term of their sums is known to."
accuracy(::AbstractNet{T}) where {T} = eps(T)

"Mean square of outputs and targets: the size of the terms that cancel in a loss near zero."
loss_scale(net::AbstractNet{T}, θ) where {T} = one(T) + abs(loss(net, θ))
function loss_scale(net::Net{T}, θ) where {T}
    net.objective isa MeanSquared || return one(T)
    f = predict(net, θ)
    return 2 * sum(abs2, f) / n_samples(net) + loss(net, θ)
end
n_samples(::AbstractNet) = 1

"""
    noise(net, θ, largest) -> eigenvalue noise, gradient noise

What rounding alone does: a sum of N terms is known to accuracy·√N of their root mean square, which for the gradient
is at most √(2·loss scale·‖Hessian‖) by Cauchy and Schwarz; eigenvalues of P×P matrices are known to
P·eps·‖Hessian‖.
"""
function noise(net::AbstractNet{T}, θ, largest) where {T}
    N, P = n_samples(net), n_params(net)
    ε = Float64(accuracy(net))
    steepest = sqrt(2 * Float64(loss_scale(net, θ)) * largest)
    return 4 * (Float64(eps(T)) * P + ε * sqrt(N)) * largest, 4 * ε * (1 + sqrt(N)) * steepest
end

"""
    classify(net, θ; gradient_tolerance = nothing) -> Classification

What kind of point θ is, from the exact Hessian and its eigenvalues λᵢ.

The tolerance τ of eigenvalues is the smallest, from rounding noise upwards, for which the Newton step over the
directions with |λᵢ| > τ changes the Hessian by no more than τ: what is told of the curvature at θ then holds at the
fixed point nearby too. θ is a fixed point if such a τ exists below λ_max/100, that step is shorter than
eps^(2/5)·(1 + ‖θ‖), and the gradient's components in the null directions are no larger than rounding
(`gradient_tolerance`). Rounding noise grows with N, P, the size of outputs and targets, and the largest eigenvalue;
see [`noise`](@ref).

A fixed point is a *saddle* if an eigenvalue is below −τ, *degenerate* if one is within ±τ, else a *minimum*. Null
directions are explained where they come from dead, silent (no outgoing weights), duplicate or linearly dependent
units, from dependent inputs, from the scale of homogeneous units, from linear layers, from a softmax's common
shift, or from interpolation (zero loss with more parameters than equations). A degenerate point with every null
direction explained, and by no silent unit, is a minimum up to these symmetries (the incoming weights of a silent
unit are free to second order only). Any other point is *escaping* if the loss falls without end
from it (see [`escape_direction`](@ref)), else *not a fixed point*.
"""
function classify(net::AbstractNet{T}, θ::AbstractVector; gradient_tolerance=nothing) where {T}
    length(θ) == n_params(net) ||
        throw(DimensionMismatch("θ has $(length(θ)) entries, the net has $(n_params(net)) parameters"))
    T <: Union{Float32,Float64} || throw(ArgumentError("classify works in Float32 and Float64, not in $T"))
    θ = Vector{T}(θ)
    g = similar(θ)
    value = value_and_gradient!(g, net, θ)
    H = Matrix{T}(undef, length(θ), length(θ))
    hessian!(H, net, θ)
    all_finite(H) && all_finite(g) || throw(ArgumentError("the gradient or the Hessian is not finite here"))
    F = eigen(Symmetric(H))
    largest = Float64(maximum(abs, F.values))
    floor_λ, floor_g = noise(net, θ, largest)
    gradient_tolerance === nothing || (floor_g = Float64(gradient_tolerance))
    step_tolerance = Float64(eps(T))^0.4 * (1 + norm(θ))
    slopes = F.vectors' * g
    τ, step, settled = resolve(net, θ, H, F, slopes, floor_λ, step_tolerance, largest)
    settled || (τ = floor_λ)
    null = abs.(F.values) .<= τ
    displacement = Float64(norm(step))
    # A gradient in curved directions leaks into null ones by the angle that the step turns them.
    allowed = floor_g + 10 * displacement * Float64(norm(g)) / (1 + norm(θ))
    fixed = settled && all(abs(slopes[i]) <= allowed for i in findall(null)) && !separates(net, θ)
    index = count(λ -> λ < -τ, F.values)
    nullity = count(null)
    explanations, unexplained, direction = Tuple{String,Int,Vector{Int},Int}[], 0, T[]
    if fixed
        kind = index > 0 ? "saddle" : nullity > 0 ? "degenerate" : "minimum"
        index > 0 && (direction = F.vectors[:, 1])
        if nullity > 0
            found, unexplained = explain(net, θ, Float64.(F.vectors[:, null]))
            explanations = [(e.label, e.layer, e.units, n) for (e, n) in found]
            equations = interpolated_equations(net, θ)
            if unexplained > 0 && length(θ) - nullity == equations
                push!(explanations, ("interpolation", length_of_layers(net), Int[], unexplained))
                unexplained = 0
            end
        end
    else
        d = separates(net, θ) ? output_direction(net, θ) : escape_direction(net, θ, g, F)
        kind = d === nothing ? "not a fixed point" : "escaping"
        d === nothing || (direction = d)
    end
    return Classification{T}(kind, index, nullity, value, T(supnorm(g)), F.values, τ, allowed, displacement,
                             step_tolerance, explanations, unexplained, direction)
end

"The tolerance of eigenvalues, the Newton step over what lies beyond it, and whether there is such a tolerance."
function resolve(net, θ::Vector{T}, H, F, slopes, floor_λ, step_tolerance, largest) where {T}
    τ = max(floor_λ, Float64(floatmin(T)))
    H′, step, before, change = similar(H), similar(θ), -1, Inf
    for attempt in 1:40
        curved, smallest = newton_step!(step, F.vectors, F.values, slopes, τ)
        curved > 0 || return τ, step, iszero(largest) || τ <= largest
        τ > largest / 100 && return τ, step, false
        if curved != before                        # else the step is the one before
            before = curved
            change = norm(step) <= step_tolerance ? hessian_change!(H′, H, net, θ, step) : Inf
        end
        change <= τ && return τ, step, true
        # In small strides: one bogus step along a null direction must not blur all eigenvalues.
        τ = min(2 * change, max(4τ, smallest * (1 + 4 * Float64(eps(T)))))
    end
    return τ, fill!(step, 0), false
end

"""
The Newton step over the eigenvalues λ with |λ| > τ, for a gradient with the components `slopes` along the eigenvectors
`V`; returns the number of these eigenvalues, and the size of the smallest.
"""
function newton_step!(step::Vector{T}, V::Matrix{T}, λ::Vector{T}, slopes::Vector{T}, τ::Float64) where {T}
    fill!(step, 0)
    curved, smallest = 0, Inf
    for k in eachindex(λ)
        size = Float64(abs(λ[k]))
        size > τ || continue
        curved += 1
        smallest = min(smallest, size)
        a = slopes[k] / λ[k]
        for i in eachindex(step)
            step[i] -= a * V[i, k]
        end
    end
    return curved, smallest
end

"Frobenius norm of ∇²L(θ + step) − H."
function hessian_change!(H′::Matrix{T}, H::Matrix{T}, net, θ::Vector{T}, step::Vector{T}) where {T}
    hessian!(H′, net, θ + step)
    s = 0.0
    for i in eachindex(H)
        s += abs2(Float64(H′[i] - H[i]))
    end
    return sqrt(s)
end

"Number of equations f(xᵢ) = yᵢ if θ solves them all to rounding, else −1."
interpolated_equations(net::AbstractNet, θ) = -1
function interpolated_equations(net::Net{T}, θ) where {T}
    net.objective isa MeanSquared || return -1
    loss(net, θ) <= (64 * eps(T))^2 * n_samples(net) * loss_scale(net, θ) || return -1
    return n_outputs(net) * count(w -> w > 0, Iterators.flatten(b.w for b in net.blocks))
end
length_of_layers(::AbstractNet) = 0
length_of_layers(net::Net) = length(net.layers)

# ---- minima at infinity ----------------------------------------------------------------------------------------

"The parameters of the last layer: its scale is a road to infinity for classifiers."
last_layer(net::AbstractNet) = 1:0
last_layer(net::Net) = last(net.layers).offset+1:net.n_params

"""
    separates(net, θ) -> Bool

Whether a net with negative log-likelihood and no regulariser tells all its labelled samples apart. Then the loss falls for
ever as the weights of the last layer grow, towards an infimum of zero that no parameters reach: the derivative along them is
−Σᵢ wᵢ Σₒ pₒ (h_label − hₒ)/N < 0, even where it is too small for a floating-point number.
"""
separates(net::AbstractNet, θ) = false
function separates(net::Net{T}, θ::Vector{T}) where {T}
    net.objective isa NegativeLogLikelihood && n_outputs(net) > 1 && unregularised(net) || return false
    P, i = predict(net, θ), 0
    for block in net.blocks, r in 1:min(block.n, n_samples(net) - i)
        i += 1
        block.w[r] > 0 || continue
        label = argmax(view(block.Y, r, :))
        sum(view(block.Y, r, :)) == block.Y[r, label] || return false          # probabilities, which finite weights may meet
        all(o -> o == label || P[o, i] < P[label, i], 1:n_outputs(net)) || return false
    end
    return true
end
function output_direction(net::Net{T}, θ::Vector{T}) where {T}
    d = zero(θ)
    d[last_layer(net)] = θ[last_layer(net)]
    return d ./ norm(d)
end

"""
    escape_direction(net, θ, g, F) -> unit vector or nothing

A direction along which the loss falls without end: strictly, at every point of a ray from θ that is followed to
10¹³ times 1 + ‖θ‖, or until nothing is left to fall. Tried are the Newton direction with |λᵢ| (which is longest
where the loss is flattest), θ itself and the part of it in the last layer. Where the valley bends, as for two units
whose outgoing weights diverge while their incoming ones merge, no ray does: then the Newton direction is followed
with the loss minimised in its complement, which counts if the slope along it stays negative and is what is left of
the gradient.
"""
function escape_direction(net::AbstractNet{T}, θ::Vector{T}, g::Vector{T}, F) where {T}
    largest = maximum(abs, F.values)
    iszero(largest) && return nothing
    slopes = F.vectors' * g
    flat = -(F.vectors * (slopes ./ max.(abs.(F.values), largest * eps(T))))
    output = zero(θ)
    output[last_layer(net)] = θ[last_layer(net)]
    for d in (flat, θ, output)
        size = norm(d)
        isfinite(size) && size > 0 && dot(d, g) < 0 || continue
        falls_along_ray(net, θ, d / size, g) && return d / size
    end
    size = norm(flat)
    isfinite(size) && size > 0 || return nothing
    # Only for the tail of a run: from anywhere else a search in the complement would find other valleys.
    norm(g) <= eps(T)^T(0.25) * sqrt(2 * loss_scale(net, θ) * largest) || return nothing
    # Not inferred before it is needed: the minimizer on a line's complement is another one to compile.
    return Base.invokelatest(falls_along_valley, net, θ, flat / size) ? flat / size : nothing
end

function falls_along_ray(net, θ::Vector{T}, d, g) where {T}
    before, h, nothing_left = loss(net, θ), T(1 + norm(θ)) / 4, eps(T) * loss_scale(net, θ)
    gradient = similar(θ)
    for k in 1:48
        k > 1 && (h *= 2)
        value = value_and_gradient!(gradient, net, θ + h * d)
        isfinite(value) && value <= before || return false
        abs(value) <= nothing_left && return k > 2
        dot(gradient, d) <= 0 || return false
        # Rounding, or a loss that has reached its limit: what came before must have been a fall.
        value >= before - 64 * eps(T) * abs(before) && return k > 2
        before = value
    end
    return true
end

function falls_along_valley(net, θ::Vector{T}, d) where {T}
    line = LinearSubspace(θ, d)
    g = similar(θ)
    x, before = θ, loss(net, θ)
    h = T(1 + norm(θ)) / 8
    for k in 1:6
        m = subspace_minloss(net, line, [h], x; maxiterations=300)
        value = value_and_gradient!(g, net, m.x)
        slope = dot(g, d)
        isfinite(value) && value < before && slope < 0 && m.gnorm <= abs(slope) / 2 || return false
        x, before = m.x, value
        h *= 2
    end
    return true
end

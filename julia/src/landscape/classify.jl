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
    classify(net, θ; gradient_tolerance = nothing, constraint = nothing) -> Classification

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
unit are free to second order only). Null directions that lead to infinity, where a unit turns into a step or two units
into the derivative of one ([`roads_to_infinity`](@ref)), make the point *escaping*: no digits are left to tell that the
loss still falls. Any other point is *escaping* if the loss falls without end from it (see [`escape_direction`](@ref)),
else *not a fixed point*.

With a [`Constraint`](@ref) all this is said of the loss as a function of its coordinates; `direction` is one in the
parameters.
"""
function classify(net::AbstractNet{T}, θ::AbstractVector; gradient_tolerance=nothing, constraint=nothing) where {T}
    length(θ) == n_params(net) ||
        throw(DimensionMismatch("θ has $(length(θ)) entries, the net has $(n_params(net)) parameters"))
    if constraint !== nothing
        C = Constraint{T}(constraint)
        return lifted(classify(ConstrainedNet(net, C), obeying(C, θ); gradient_tolerance=gradient_tolerance), C)
    end
    T <: Union{Float32,Float64} || throw(ArgumentError("classify works in Float32 and Float64, not in $T"))
    θ = Vector{T}(θ)
    g = similar(θ)
    value = value_and_gradient!(g, net, θ)
    H = Matrix{T}(undef, length(θ), length(θ))
    hessian!(H, net, θ)
    all_finite(H) && all_finite(g) || throw(ArgumentError("the gradient or the Hessian is not finite here"))
    F = eigenpairs(H)
    largest = Float64(maximum(abs, F.values))
    floor_λ, floor_g = noise(net, θ, largest)::Tuple{Float64,Float64}
    gradient_tolerance === nothing || (floor_g = Float64(gradient_tolerance))
    step_tolerance = Float64(eps(T))^0.4 * (1 + norm(θ))
    slopes = F.vectors' * g
    resolved, step, settled = resolve(net, θ, H, F, slopes, floor_λ, step_tolerance, largest)
    τ = settled ? resolved : floor_λ
    null = findall(λ -> abs(λ) <= τ, F.values)
    displacement = Float64(norm(step))
    # A gradient in curved directions leaks into null ones by the angle that the step turns them.
    allowed = floor_g + 10 * displacement * Float64(norm(g)) / (1 + norm(θ))
    fixed = settled && all(abs(slopes[i]) <= allowed for i in null) && !separates(net, θ)
    index = count(λ -> λ < -τ, F.values)::Int
    nullity = length(null)
    explanations, unexplained, direction = Tuple{String,Int,Vector{Int},Int}[], 0, T[]
    if fixed
        kind = index > 0 ? "saddle" : nullity > 0 ? "degenerate" : "minimum"
        index > 0 && (direction = F.vectors[:, 1])
        if nullity > 0
            N = Float64.(F.vectors[:, null])
            found, unexplained = explain(net, θ, N)
            roads = index > 0 ? Invariance[] : roads_to_infinity(net, θ, N)
            if !isempty(roads)
                kind, unexplained, direction = "escaping", 0, Vector{T}(first(roads).directions[1])
                found = [(road, length(road.directions)) for road in roads]
            end
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
        d === nothing || (direction = d; explanations = separates(net, θ) ?
            [("separable classes", length_of_layers(net), Int[], 1)] : roads_of_channels(net, θ))
    end
    return Classification{T}(kind, index, nullity, value, T(supnorm(g)), F.values, τ, allowed, displacement,
                             step_tolerance, explanations, unexplained, direction)
end

"The coordinates of θ, which must obey the constraint."
function obeying(C::Constraint{T}, θ) where {T}
    z = coordinates(C, θ)
    off = supnorm(embed(C, z) - Vector{T}(θ))
    off <= sqrt(eps(T)) * (1 + norm(θ)) ||
        throw(ArgumentError("θ does not obey the constraint: the nearest point that does is $off away in a parameter"))
    return z
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
